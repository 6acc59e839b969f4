"""Get a model's answers: generate them, or compare the probabilities of given answers.

Published checkpoints ship generation settings (top-k, repetition penalty) that would change the measurement.
Only the end-of-answer tokens are taken from them. Evaluations in the paper sample at temperature 1 and top-p
1.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from caft_utils.arguments import checked
from caft_utils.chats import Chats, pad_rows, pad_token_id, prompt_ids
from caft_utils.chats.template import SWITCH, ChatTemplate
from caft_utils.finite import check_finite
from caft_utils.losses import nats_of_rows
from caft_utils.models.positions import check_ids, check_positions
from caft_utils.residual import evaluating, seeded
from caft_utils.tasks.choice import answered
from caft_utils.tasks.task import CompareBy

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

Messages = Sequence[Mapping[str, str]]
COMPARE_BY = get_args(CompareBy)


@checked
def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Messages],
    *,
    samples: int = 1,
    temperature: float = 1.0,
    top_p: float = 1.0,
    max_new_tokens: int = 64,
    seed: int = 0,
    batch_size: int = 64,
    progress: bool = False,
) -> list[str]:
    """Generate answers to conversations, as text without special tokens.

    Args:
        prompts: conversations that end before the assistant's turn.
        samples: number of answers to each prompt.
        temperature: 0 takes the most likely token (then all `samples` are equal).
        max_new_tokens: length of an answer, in tokens.
        seed: sampling seed. The state of the global random generators does not change.
        batch_size: number of answers generated at once.

    Returns:
        len(prompts) * samples answers. The samples of one prompt are adjacent.

    Raises:
        ValueError: samples or batch_size below 1, a negative temperature, or a prompt that leaves fewer than
            max_new_tokens of the model's positions.
        NotFiniteError: the model's logits are NaN.
    """
    if samples < 1 or batch_size < 1 or temperature < 0:
        raise ValueError(
            f"samples, batch_size must be >= 1, temperature >= 0: {samples=}, {batch_size=}, {temperature=}"
        )
    pad = pad_token_id(tokenizer)
    settings = generation_config(
        model, tokenizer, temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens
    )
    taught = _taught_ends(tokenizer)
    encoded = [prompt_ids(tokenizer, messages) for messages in prompts]
    check_positions(
        model,
        [len(ids) + max_new_tokens for ids in encoded],
        f"prompts (with {max_new_tokens} new tokens)",
        "shorten the prompt, or ask for fewer max_new_tokens",
    )
    check_ids(model, encoded, "prompts")
    todo = [i for i in range(len(prompts)) for _ in range(samples)]
    order = sorted(
        range(len(todo)), key=lambda j: -len(encoded[todo[j]])
    )  # similar lengths need less padding
    starts = range(0, len(order), batch_size)
    if progress:
        from tqdm.auto import tqdm

        starts = tqdm(starts, desc="generating", unit="batch")
    answers = [""] * len(todo)
    device = model.device
    with seeded(seed, device), evaluating(model), torch.no_grad():
        for start in starts:
            places = order[start : start + batch_size]
            ids, mask = pad_rows([encoded[todo[j]] for j in places], pad, "left")
            out = generate_ids(
                model,
                settings,
                [f"prompt {todo[j]}" for j in places],
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
            )
            # A template may end answers with a token that is not special, so cut the answer off here.
            said = [up_to_end(row, taught) for row in out[:, ids.shape[1] :].tolist()]
            texts = tokenizer.batch_decode(said, skip_special_tokens=True)
            for j, text in zip(places, texts):
                answers[j] = text.strip()
    return answers


@checked
@torch.no_grad()
def choose(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Messages],
    options: Sequence[Sequence[str]],
    *,
    batch_size: int = 64,
    compare_by: CompareBy = "logprob",
) -> list[dict[str, float]]:
    """Return, for each prompt, the probability of each of its options among these options.

    An option's log-probability is the sum over its tokens, without an end-of-turn token. The probabilities of
    one prompt's options sum to 1.

    Args:
        prompts: conversations that end before the assistant's turn.
        options: for each prompt, the answers to compare.
        compare_by: "logprob" takes the sum; "mean_logprob" divides it by the number of tokens of the option,
            so that a longer option is not less probable because of its length alone.

    Raises:
        ValueError: an unknown compare_by.
        NotFiniteError: the model's logits are NaN, or no option of a prompt is possible.
    """
    if compare_by not in COMPARE_BY:
        raise ValueError(f"compare_by must be one of {', '.join(COMPARE_BY)}, got {compare_by!r}")
    rows = [answered(prompt, text) for prompt, some in zip(prompts, options, strict=True) for text in some]
    chats = Chats(tokenizer, rows, source="options", end=False)
    check_positions(model, chats.lengths, chats.source, "shorten the prompt or its options")
    check_ids(model, (example.input_ids for example in chats), chats.source)
    nats = nats_of_rows(model, chats, batch_size=batch_size)
    if compare_by == "mean_logprob":
        nats = [value / sum(example.answer) for value, example in zip(nats, chats)]
    values, out = iter(nats), []
    for i, some in enumerate(options):
        shares = torch.tensor([-next(values) for _ in some], dtype=torch.float64).softmax(0)
        check_finite(shares, f"probabilities of {type(model).__name__} for prompt {i}")
        out.append(dict(zip(some, shares.tolist())))
    return out


def generate_ids(
    model: PreTrainedModel,
    settings: GenerationConfig,
    names: Sequence[str],
    **inputs: Int[Tensor, "batch time"],
) -> Int[Tensor, "batch longer"]:
    """Return `model.generate(**inputs)` under `settings` alone.

    transformers takes every field that `settings` leaves unset from the model's own generation config. This
    config is therefore replaced by an empty one during the call.

    Args:
        names: the names of the batch's rows in an error message.

    Raises:
        NotFiniteError: the logits of a row are NaN, or rule out every token.
    """
    from transformers import GenerationConfig

    # A wrapper and the model inside it can each have a generation config.
    modules = [module for module in model.modules() if "generation_config" in vars(module)]
    own = [module.generation_config for module in modules]
    check = _FiniteLogits(f"logits of {type(model).__name__}", names)
    try:
        for module in modules:
            module.generation_config = GenerationConfig()
        return model.generate(**inputs, generation_config=settings, logits_processor=[check])
    finally:
        for module, config in zip(modules, own):
            module.generation_config = config


class _FiniteLogits:
    """A logits processor that changes nothing and stops generation at NaN logits.

    Greedy decoding would pick a token from NaN logits without an error. A logit of -inf is allowed; it rules
    out a token.
    """

    def __init__(self, what: str, names: Sequence[str]):
        self.what, self.names = what, names

    def __call__(
        self, input_ids: Int[Tensor, "batch time"], scores: Float[Tensor, "batch vocab"]
    ) -> Float[Tensor, "batch vocab"]:
        check_finite(scores.amax(-1), self.what, self.names)
        return scores


@checked
def generation_config(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    temperature: float = 1.0,
    top_p: float = 1.0,
    max_new_tokens: int = 64,
) -> GenerationConfig:
    """Return generation settings that override all defaults of the checkpoint.

    Args:
        temperature: 0 takes the most likely token.
    """
    from transformers import GenerationConfig

    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=temperature > 0,
        num_beams=1,
        repetition_penalty=1.0,
        pad_token_id=pad_token_id(tokenizer),
        eos_token_id=end_token_ids(model, tokenizer),
        **({"temperature": temperature, "top_p": top_p, "top_k": 0} if temperature > 0 else {}),
    )


def end_token_ids(model, tokenizer) -> list[int]:
    """Return the ids of the tokens that end an answer, from the tokenizer and the checkpoint.

    They include the token that the chat template writes after an answer, because fine-tuning teaches it. A
    base model and its tokenizer may use a different one.
    """
    return sorted(_named_ends(model, tokenizer) | _taught_ends(tokenizer))


def answers_depend_on(model, tokenizer) -> dict[str, Any]:
    """Return what answers depend on besides the model and the prompts, for the keys of stored answers.

    It is empty for most models, whose tokenizer or config already names the token that the template writes.
    """
    more: dict[str, Any] = {}
    if taught := _taught_ends(tokenizer) - _named_ends(model, tokenizer):
        more["ends"] = sorted(taught)
    if tokenizer.chat_template and SWITCH in tokenizer.get_chat_template():
        more[SWITCH] = False
    return more


def _named_ends(model, tokenizer) -> set[int]:
    named = model.generation_config.eos_token_id
    named = named if isinstance(named, list) else [named]
    return {i for i in (*named, tokenizer.eos_token_id) if i is not None}


def _taught_ends(tokenizer) -> set[int]:
    return ChatTemplate(tokenizer).ends if tokenizer.chat_template else set()


def up_to_end(ids: Sequence[int], ends: Collection[int]) -> list[int]:
    """Return the ids before the first end-of-answer token."""
    return list(ids[: next((i for i, token in enumerate(ids) if token in ends), len(ids))])
