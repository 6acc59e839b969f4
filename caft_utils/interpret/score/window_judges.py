"""Window judges: given an explanation, how probable is it that a window of text fits it?

A language model answers one yes-or-no question per window, and the probability is read from its logits,

    p = sum p(yes) / (sum p(yes) + sum p(no))      (over spellings of both words, at the first answer token)

Probabilities need no parsing and give an AUROC fine-grained ranks, and models that are too small to write a
list in JSON can still judge. The first token decides only if both words together have at least `MIN_MASS` of
the probability. Otherwise the reply begins with something else, such as a line break or a thought, and the
text of a server's reply is parsed. A reply that says neither yes nor no is None, which scores count as a
failure. In fuzzing, the tokens in question are <<marked>>. (arXiv 2410.13928, section 3.3.)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch

from caft_utils.arguments import checked
from caft_utils.chats import prompt_ids
from caft_utils.chats.rows import TEXT
from caft_utils.finite import check_finite
from caft_utils.interpret.answers import MIN_MASS, final_text, verdict_probabilities, was_cut_off
from caft_utils.interpret.examples.text_window import TextWindow
from caft_utils.interpret.marked_text import mark_tokens
from caft_utils.interpret.replies import replies_or_none
from caft_utils.interpret.score.padded_batches import left_padded_batches
from caft_utils.models.positions import check_positions
from caft_utils.residual import evaluating

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from caft_utils.interpret.endpoint import Endpoint, Reply

DETECTION_PROMPT = """Here is a description of a pattern in text, and a short piece of text.

Description: {explanation}

Text: {text}

Does the description fit something in the text? Answer with one word, yes or no."""

FUZZING_PROMPT = """Here is a description of a pattern in text, and a short piece of text in which some \
words are marked <<like this>>.

Description: {explanation}

Text: {text}

Does the description fit the marked words? Answer with one word, yes or no."""


class WindowJudge(Protocol):
    """Return for each window the probability that it fits the explanation; None for an unreadable reply.

    marked: the positions of the marked tokens of each window. The judge is then asked whether these fit.
    """

    name: str

    def __call__(
        self, explanation: str, windows: Sequence[TextWindow], marked: Sequence[set[int]] | None = None
    ) -> list[float | None]: ...


def judge_prompt(explanation: str, window: TextWindow, marks: set[int] | None = None) -> list[dict[str, str]]:
    """Return the prompt of a language model about one window, as a conversation."""
    text = "".join(window.tokens) if marks is None else mark_tokens(window, marks)
    template = DETECTION_PROMPT if marks is None else FUZZING_PROMPT
    return [{"role": "user", "content": template.format(explanation=explanation, text=text)}]


def _prompts(
    explanation: str, windows: Sequence[TextWindow], marked: Sequence[set[int]] | None
) -> list[list[dict[str, str]]]:
    all_marks = marked or [None] * len(windows)
    return [judge_prompt(explanation, window, marks) for window, marks in zip(windows, all_marks)]


class LocalWindowJudge:
    """A causal language model in this process, asked through its chat template (without one, as plain text).

    Args:
        min_mass: smallest total probability of yes and no at the first token of the answer. Below it, the
            model is about to write something else, and the window counts as unreadable.

    Raises:
        ValueError: the tokenizer begins "yes" and "no" with the same tokens.
    """

    @checked
    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch_size: int = 32,
        min_mass: float = MIN_MASS,
    ):
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size
        self.min_mass = min_mass
        self.name = str(getattr(model, "name_or_path", "") or type(model).__name__)
        yes, no = (_first_tokens(tokenizer, word) for word in ("yes", "no"))
        self._yes, self._no = sorted(yes - no), sorted(no - yes)
        if not self._yes or not self._no:
            raise ValueError(
                "this tokenizer begins the answers yes and no with the same token, so the next token cannot "
                "tell them apart; use an instruction-tuned model with words in its vocabulary"
            )

    def __call__(
        self, explanation: str, windows: Sequence[TextWindow], marked: Sequence[set[int]] | None = None
    ) -> list[float | None]:
        """Return a probability for each window, None where yes and no are both improbable.

        Raises:
            NotFiniteError: the model's logits are NaN or infinite.
        """
        rows = [self._ids(messages) for messages in _prompts(explanation, windows, marked)]
        check_positions(self.model, map(len, rows), "prompts of the judge", "shorten the windows")
        probabilities: list[float | None] = [None] * len(rows)
        batches = left_padded_batches(rows, self.tokenizer, self.batch_size, self.model.device)
        with torch.no_grad(), evaluating(self.model):
            for indices, batch in batches:
                logits = self.model(**batch, logits_to_keep=1, use_cache=False).logits[:, -1].float()
                yes, no = logits[:, self._yes].logsumexp(1), logits[:, self._no].logsumexp(1)
                total = logits.logsumexp(1)  # NaN if any logit is; a token may have a logit of -inf
                check_finite(total, f"logits of {self.name}", [f"window {i}" for i in indices])
                mass = (torch.logaddexp(yes, no) - total).exp()
                for i, p, enough in zip(indices, torch.sigmoid(yes - no).tolist(), mass >= self.min_mass):
                    probabilities[i] = p if enough else None
        return probabilities

    def _ids(self, messages: list[dict[str, str]]) -> list[int]:
        if self.tokenizer.chat_template:
            return prompt_ids(self.tokenizer, messages)
        plain = {"role": TEXT, "content": messages[0]["content"] + "\n\nAnswer:"}
        return prompt_ids(self.tokenizer, [plain])


class EndpointWindowJudge:
    """A chat model on a server, asked for one word with its log-probabilities.

    Args:
        top_logprobs: number of alternatives to request. None for servers that refuse them; the text then
            gives 1 or 0.

    Raises:
        EndpointError (when called): the server refuses all requests alike, or no window got a reply.
    """

    @checked
    def __init__(self, endpoint: Endpoint, *, top_logprobs: int | None = 5, max_tokens: int = 8):
        self.endpoint, self.top_logprobs, self.max_tokens = endpoint, top_logprobs, max_tokens
        self.name = endpoint.model

    def __call__(
        self, explanation: str, windows: Sequence[TextWindow], marked: Sequence[set[int]] | None = None
    ) -> list[float | None]:
        """Return a probability for each window, None where there is no readable reply."""
        prompts = _prompts(explanation, windows, marked)
        settings = {"max_tokens": self.max_tokens, "top_logprobs": self.top_logprobs}
        replies = replies_or_none(self.endpoint, prompts, **settings)
        return [reply and _yes_probability(reply) for reply in replies]


def _yes_probability(reply: Reply) -> float | None:
    """Return p(yes) from the first token of the answer if it decides, otherwise from the text."""
    text = final_text(reply.text, reply.finish)
    if text is None:
        return None
    masses = verdict_probabilities(text, reply.logprobs, lambda t: t if t in ("yes", "no") else None)
    if masses is not None:
        return masses.get("yes", 0.0) / sum(masses.values())
    answer = _yes_or_no(text, was_cut_off(reply.finish))
    return None if answer is None else float(answer == "yes")


def _yes_or_no(text: str, cut_off: bool) -> str | None:
    """Return "yes" or "no" if the text begins with one of them and does not contain the other.

    An answer that was cut off right after "no" may be the beginning of "nobody".
    """
    match = re.match(r"[\W_]*(yes|no)(?![\w-])", text, flags=re.I)
    if not match or (cut_off and match.end() == len(text)):
        return None
    answer = match[1].lower()
    other = {"yes": "no", "no": "yes"}[answer]
    return None if re.search(rf"\b{other}\b", text, flags=re.I) else answer


def _first_tokens(tokenizer: PreTrainedTokenizerBase, word: str) -> set[int]:
    """Return the first tokens of the spellings of an answer, except tokens of only white space."""
    spellings = [space + form for space in ("", " ") for form in (word, word.capitalize(), word.upper())]
    firsts = {tokenizer(text, add_special_tokens=False)["input_ids"][0] for text in spellings}
    return {token for token in firsts if tokenizer.decode([token]).strip()}
