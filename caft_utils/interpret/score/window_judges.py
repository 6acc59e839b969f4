"""Judges: given an explanation, how probable is it that a window of text fits?

A language model answers one question a window with yes or no, and the probability is read from its logits,

    p = sum p(yes) / (sum p(yes) + sum p(no))      (over spellings of either word, at the first answer token),

so there is nothing to parse, an AUROC has all the ranks to work with, and models too small to write a
list in JSON can judge. A server that gives no log-probabilities is read as text; a reply that says
neither is None, a failure that scores count. In fuzzing the tokens in question stand in the window as
<<marked>>. (arXiv 2410.13928, section 3.3.)
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Protocol

import torch
from jaxtyping import Int
from torch import Tensor

from caft_utils.chats import prompt_ids
from caft_utils.interpret.examples.max_activating import TextWindow

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from caft_utils.interpret.endpoint import Endpoint

DETECTION = """Here is a description of a pattern in text, and a short piece of text.

Description: {explanation}

Text: {text}

Does the description fit something in the text? Answer with one word, yes or no."""

FUZZING = """Here is a description of a pattern in text, and a short piece of text in which some words \
are marked <<like this>>.

Description: {explanation}

Text: {text}

Does the description fit the marked words? Answer with one word, yes or no."""


class WindowJudge(Protocol):
    """Says for each window with which probability it fits the explanation; None: no reply that can be read.

    marked: for each window the places of its marked tokens, where the question is whether these fit.
    """

    name: str

    def __call__(
        self, explanation: str, windows: Sequence[TextWindow], marked: Sequence[set[int]] | None = None
    ) -> list[float | None]: ...


def question(explanation: str, window: TextWindow, marks: set[int] | None = None) -> list[dict[str, str]]:
    """What a language model is asked about one window, as a conversation."""
    text = "".join(window.tokens) if marks is None else shown(window, marks)
    form = DETECTION if marks is None else FUZZING
    return [{"role": "user", "content": form.format(explanation=explanation, text=text)}]


def shown(window: TextWindow, marks: set[int]) -> str:
    """The window's text with each run of marked tokens in << >>, white space around the run left outside."""
    parts = []
    for marked, run in groupby(enumerate(window.tokens), key=lambda pair: pair[0] in marks):
        text = "".join(token for _, token in run)
        parts.append(re.sub(r"^(\s*)(.*?)(\s*)$", r"\1<<\2>>\3", text, flags=re.S) if marked else text)
    return "".join(parts)


class LocalJudge:
    """A causal language model in this process, asked through its chat template (without one: as plain text).

    Raises:
        ValueError: the tokenizer begins "yes" and "no" with the same tokens.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, batch_size: int = 32):
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size
        self.name = str(getattr(model, "name_or_path", "") or type(model).__name__)
        yes, no = (_beginnings(tokenizer, word) for word in ("yes", "no"))
        self._yes, self._no = sorted(yes - no), sorted(no - yes)
        if not self._yes or not self._no:
            raise ValueError(
                "this tokenizer begins the answers yes and no with the same token, so the next token cannot "
                "tell them apart; use an instruction-tuned model with words in its vocabulary"
            )

    def __call__(
        self, explanation: str, windows: Sequence[TextWindow], marked: Sequence[set[int]] | None = None
    ) -> list[float | None]:
        """A probability for each window; None where the logits are not finite."""
        prompts = [
            self._ids(question(explanation, window, marks))
            for window, marks in zip(windows, marked or [None] * len(windows))
        ]
        found: list[float | None] = [None] * len(prompts)
        for places, batch in left_padded(prompts, self.tokenizer, self.batch_size, self.model.device):
            with torch.no_grad():
                logits = self.model(**batch, logits_to_keep=1, use_cache=False).logits[:, -1].float()
            yes, no = logits[:, self._yes].logsumexp(1), logits[:, self._no].logsumexp(1)
            for place, p in zip(places, torch.sigmoid(yes - no).tolist()):
                found[place] = p if math.isfinite(p) else None
        return found

    def _ids(self, messages: list[dict[str, str]]) -> list[int]:
        if self.tokenizer.chat_template:
            return prompt_ids(self.tokenizer, messages)
        return self.tokenizer(messages[0]["content"] + "\n\nAnswer:")["input_ids"]


class EndpointJudge:
    """A chat model on a server, asked for one word with its log-probabilities.

    Args:
        top_logprobs: alternatives asked for; None for servers that refuse to give any: then the text is
            read, as 1 or 0.

    Raises:
        EndpointError (when called): the server refuses all requests alike, or no window got a reply.
    """

    def __init__(self, endpoint: Endpoint, *, top_logprobs: int | None = 5, max_tokens: int = 8):
        self.endpoint, self.top_logprobs, self.max_tokens = endpoint, top_logprobs, max_tokens
        self.name = endpoint.model

    def __call__(
        self, explanation: str, windows: Sequence[TextWindow], marked: Sequence[set[int]] | None = None
    ) -> list[float | None]:
        prompts = [
            question(explanation, window, marks)
            for window, marks in zip(windows, marked or [None] * len(windows))
        ]
        replies = self.endpoint.chat_all(prompts, max_tokens=self.max_tokens, top_logprobs=self.top_logprobs)
        errors = [reply for reply in replies if isinstance(reply, Exception)]
        if lost := [error for error in errors if error.for_all] or (
            errors if len(errors) == len(replies) else []
        ):
            raise lost[0]
        return [None if isinstance(reply, Exception) else _probability(reply) for reply in replies]


def _probability(reply) -> float | None:
    """Of yes, from the first token's alternatives if they hold yes or no, else from the text."""
    totals = {"yes": 0.0, "no": 0.0}
    for token, logprob in (reply.logprobs or [{}])[0].items():
        word = _said(token)
        if word:
            totals[word] += math.exp(logprob)
    if sum(totals.values()) > 0:
        return totals["yes"] / sum(totals.values())
    word = _said(reply.text)
    return None if word is None else float(word == "yes")


def _said(text: str) -> str | None:
    """The word yes or no with which a text begins."""
    match = re.match(r"\W*(yes|no)\b", text, flags=re.I)
    return match[1].lower() if match else None


def _beginnings(tokenizer, word: str) -> set[int]:
    """First tokens of the spellings of an answer, those of white space only left out."""
    spellings = [space + form for space in ("", " ") for form in (word, word.capitalize(), word.upper())]
    firsts = {tokenizer(text, add_special_tokens=False)["input_ids"][0] for text in spellings}
    return {token for token in firsts if tokenizer.decode([token]).strip()}


def left_padded(
    rows: Sequence[Sequence[int]], tokenizer, batch_size: int, device: torch.device
) -> Iterator[tuple[list[int], dict[str, Int[Tensor, "batch time"]]]]:
    """Batches of like lengths that end in the same column: (places in `rows`, arguments of the model)."""
    pad = next(i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if i is not None)
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    for start in range(0, len(order), batch_size):
        places = order[start : start + batch_size]
        width = len(rows[places[0]])
        ids = torch.tensor([[pad] * (width - len(rows[i])) + list(rows[i]) for i in places])
        mask = torch.tensor([[0] * (width - len(rows[i])) + [1] * len(rows[i]) for i in places])
        # Positions count from each row's own beginning; a model would else count its padding.
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        batch = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        yield places, {name: tensor.to(device) for name, tensor in batch.items()}
