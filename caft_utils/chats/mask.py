"""The answer mask: which tokens of a row belong to an assistant's answer.

An answer begins where its prompt ends, the one that `generate` would give the model, and ends with the
end-of-turn token. The tokens before an answer in training are thus those of its prompt in evaluation, and no
token spans the two. A row is refused if a chat template makes that impossible. If a template has
`{% generation %}` markers, they say which turns are learnt and where an answer ends.

A prompt with the role "text" is outside any template, and the text after it is the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from caft_utils.chats.rows import TEXT
from caft_utils.chats.spans import answer_spans, refuse_ignored
from caft_utils.chats.template import ChatTemplate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of texts. If the tokenizer adds a BOS, each text begins with exactly one.

    A template may have written BOS already. An EOS is not added, because the text continues.
    """
    probe = tokenizer("a", return_special_tokens_mask=True)
    count = next((i for i, added in enumerate(probe["special_tokens_mask"]) if not added), 0)
    bos = list(probe["input_ids"][:count])
    encoded = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return [list(ids) if ids[:count] == bos else bos + list(ids) for ids in encoded]


def prompt_ids(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]]) -> list[int]:
    """Return the token ids of a conversation, up to and including the header of the assistant's next turn.

    Raises:
        ValueError: the tokenizer has no chat template, or the template leaves out a message.
    """
    if messages and messages[0]["role"] == TEXT:
        return encode(tokenizer, [messages[0]["content"]])[0]
    if not messages:
        raise ValueError("the conversation is empty; expected a message to answer")
    template = ChatTemplate(tokenizer)
    text = template.render(messages, header=True)
    refuse_ignored(template, messages, text, header=True)
    starts = [len(prompt) for _, prompt in template.prompts(messages) if prompt and text.startswith(prompt)]
    return _encode_apart(tokenizer, text, starts)[-1]


def tokenise_text(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[list[int], list[bool]]:
    """Return the token ids of plain text, and its answer mask: all tokens but BOS and other added ones."""
    encoded = tokenizer(text, return_special_tokens_mask=True)
    ids, answer = list(encoded["input_ids"]), [not added for added in encoded["special_tokens_mask"]]
    bos = tokenizer.bos_token_id
    if bos is not None and ids[:2] == [bos, bos] and not answer[0]:
        ids, answer = ids[1:], answer[1:]  # the text was rendered by a template that writes BOS
    if ids[:1] == [bos]:
        answer[0] = False
    return ids, answer


def tokenise_continuation(
    tokenizer: PreTrainedTokenizerBase, prompt: str, answer: str, where: str
) -> tuple[list[int], list[bool]]:
    """Return the token ids of a prompt with its answer, and the answer mask.

    Raises:
        ValueError: a token spans the end of the prompt and the beginning of the answer.
    """
    before, whole = encode(tokenizer, [prompt, prompt + answer])
    if whole[: len(before)] != before or len(whole) == len(before):
        raise ValueError(
            f"{where}: this tokenizer joins the end of the prompt with the answer {answer!r}, so no "
            "token belongs to the answer alone; put a space before the answer, or end the prompt differently"
        )
    return whole, [i >= len(before) for i in range(len(whole))]


def tokenise_chat(
    template: ChatTemplate, messages: Sequence[Mapping[str, str]], end: bool = True
) -> tuple[list[int], list[bool]]:
    """Return the token ids of a conversation, and the answer mask.

    Args:
        end: whether the tokens that end a turn count as answer. Without them, no special token does.

    Raises:
        ValueError: the template does not write an answer right after its prompt, leaves out a message, or
            ends answers with text that is no token.
    """
    tokenizer, ending = template.tokenizer, template.ending
    if end and ending.token is None and ending.text.strip():
        raise ValueError(
            f"{template.where(ending.text)} ends an answer with {ending.text.strip()!r}, which is no token "
            "of this tokenizer, so `generate` could not stop there; add it with tokenizer.add_special_tokens "
            "and resize the model's embeddings, or end answers with eos_token"
        )
    text, spans = answer_spans(template, messages)
    starts = [start for start, _ in spans]
    *prompts, ids = _encode_apart(tokenizer, text, starts)
    answer = [False] * len(ids)
    for first, span in zip(map(len, prompts), spans):
        count = _answer_tokens(tokenizer, text, starts, span, ids[first:]) if span[0] < span[1] else 0
        answer[first : first + count] = [True] * count
    if not any(answer):
        raise ValueError(f"{template.where('generation')} marks no answer of this row")
    if not end:
        special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        answer = [a and token not in special | template.ends for token, a in zip(ids, answer)]
    return ids, answer


def _encode_apart(tokenizer: PreTrainedTokenizerBase, text: str, starts: Sequence[int]) -> list[list[int]]:
    """Return the token ids of `text` up to each of `starts`, where answers begin, and of all of it.

    Each list begins with the previous one, so no token spans the beginning of an answer. Where a token would,
    the text after it is encoded separately. The tokens of a prompt thus do not depend on its answer.
    """
    places, out = [*starts, len(text)], []
    for whole, place in zip(encode(tokenizer, [text[:place] for place in places]), places):
        ids = whole
        for before, start in zip(out, starts):
            if ids[: len(before)] != before:
                ids = _continued(tokenizer, before, text[start:place], tokenizer.decode(whole))
        out.append(ids)
    return out


def _continued(tokenizer: PreTrainedTokenizerBase, before: list[int], tail: str, whole: str) -> list[int]:
    """Return `before` with the tokens of `tail`, which decode to the text `whole`.

    Some tokenizers put a blank before the first word of a text. `tail` is therefore also encoded after some
    other text, whose tokens are then removed.
    """
    for other in ("", "\n", ".", "x", "x\n"):
        first, both = tokenizer([other, other + tail], add_special_tokens=False)["input_ids"]
        ids = before + both[len(first) :]
        if both[: len(first)] == first and tokenizer.decode(ids) == whole:
            return ids
    raise ValueError(
        f"this tokenizer joins the end of the prompt with the text after it, {tail[:20]!r}, so no token "
        "begins there; let the header of an answer end without a blank, or begin the answer without one"
    )


def _answer_tokens(
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    starts: Sequence[int],
    span: tuple[int, int],
    rest: list[int],
) -> int:
    """Return the number of tokens of the span. `rest` holds the ids from its beginning on.

    A token that extends beyond the span does not count.
    """
    start, stop = span
    said = tokenizer(text[start:stop], add_special_tokens=False)["input_ids"]
    if rest[: len(said)] != said:  # some tokenizers encode the same text differently after other text
        *_, before, upto = _encode_apart(tokenizer, text[:stop], [s for s in starts if s <= start])
        said = upto[len(before) :]
    return next((i for i, (a, b) in enumerate(zip(said, rest)) if a != b), min(len(said), len(rest)))
