"""Simple rivals of a language model as the judge of answers, without a prompt and without a server.

words               logistic regression on TF-IDF of the words of the answer, fitted to the judge's training
                    rows; for coherence also on the words that question and answer share
log-probability     of the answer after its question, per token, in the model that the judge was made of
number of words     of the answer
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from caft_utils.chats import Chats
from caft_utils.course.studies.judge_training import ALL, Scale, ScoredAnswer
from caft_utils.interpret.tfidf import TfIdf
from caft_utils.losses import nats_of_rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PENALTY = 0.01  # of the squared weights
SHARED, OWN = "a word of the question", "a word that the question lacks"


class WordJudge:
    """Logistic regression on TF-IDF vectors: the log-odds that an answer gets the full score.

    Args:
        answers: the training rows; those of other scales are left out.
    """

    def __init__(self, scale: Scale, answers: Sequence[ScoredAnswer]):
        self.scale = scale
        own = [one for one in answers if one.scale == scale]
        bags = [self._terms(one.question, one.answer) for one in own]
        self.tfidf = TfIdf(bags, torch.float64)
        x = self.tfidf.dense(bags)
        y = torch.tensor([float(one.score == ALL) for one in own], dtype=torch.float64)
        self.weights = torch.zeros(x.shape[1] + 1, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([self.weights], max_iter=200, line_search_fn="strong_wolfe")

        def loss() -> torch.Tensor:
            optimizer.zero_grad()
            logits = x @ self.weights[:-1] + self.weights[-1]
            nats = torch.nn.functional.binary_cross_entropy_with_logits(logits, y)
            nats = nats + PENALTY * self.weights[:-1].square().sum()
            nats.backward()
            return nats

        optimizer.step(loss)
        self.weights.requires_grad_(False)

    def scores(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Return the log-odds of (question, answer) pairs. A word without a training row counts nothing."""
        x = self.tfidf.dense([self._terms(*pair) for pair in pairs])
        return (x @ self.weights[:-1] + self.weights[-1]).tolist()

    def _terms(self, question: str, answer: str) -> list[str]:
        words, asked = _words(answer), set(_words(question))
        if self.scale == "alignment":
            return words
        return words + [SHARED if word in asked else OWN for word in words]


def answer_logprobs(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, str]]
) -> list[float]:
    """Return the mean log-probability of each answer's tokens after its question, in nats."""
    chats = Chats(tokenizer, [_row(*pair) for pair in pairs], source="answers to judge")
    tokens = [sum(example.answer) for example in chats]
    return [-nats / count for nats, count in zip(nats_of_rows(model, chats, batch_size=8), tokens)]


def word_counts(pairs: Sequence[tuple[str, str]]) -> list[float]:
    """Return the number of words of each answer."""
    return [float(len(_words(answer))) for _, answer in pairs]


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def _row(question: str, answer: str) -> dict:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
