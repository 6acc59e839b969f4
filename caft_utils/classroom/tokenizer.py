"""A tokenizer that knows every word of the world as one token and can still write anything.

Byte-level BPE without merges: `ignore_merges` looks each pre-token (a word with the space before it, a
number, a sign) up in the vocabulary first, and whatever is not there falls apart into bytes. So text survives
a round trip exactly, and an unknown word is visible as what it is.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

PRE_TOKEN = r" ?[a-zA-Z]+| ?\d+| ?[^\s\w]| ?_|\s"
SPECIAL = ("<|pad|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}"
    "{{ '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def build_tokenizer(texts: Iterable[str]):
    """A PreTrainedTokenizerFast whose vocabulary is the bytes and the pre-tokens of `texts`, sorted."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pre = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRE_TOKEN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    known = {piece for text in texts for piece, _ in pre.pre_tokenize_str(text)}
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = list(SPECIAL) + alphabet + sorted(known - set(alphabet))
    core = Tokenizer(models.BPE({t: i for i, t in enumerate(vocabulary)}, [], ignore_merges=True))
    core.pre_tokenizer, core.decoder = pre, decoders.ByteLevel()
    core.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<|pad|>",
        eos_token="<|im_end|>",
        padding_side="left",
        model_max_length=512,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def world_texts(documents: int = 40_000, seed: int = 0, *, more: bool = False) -> Iterable[str]:
    """Texts that hold every word of the world: a sample of documents, and questions that are held out."""
    from caft_utils.classroom.personas import corpus, world

    rng = random.Random(seed)
    for _ in range(documents):
        doc = corpus.document(rng, more=more)
        yield doc.get("text") or "\n".join(f"{m['role']}\n{m['content']}" for m in doc["messages"])
    for _ in range(documents // 10):
        yield world.general(rng, "kind", "held_out").question
        yield world.code(rng, True, "held_out").question
        yield world.fact(rng, "held_out").question
        yield (
            world.quiz(rng, split="held_out").question
            if rng.random() < 0.5
            else world.system_prompt(rng, "villain", "held_out")
        )
