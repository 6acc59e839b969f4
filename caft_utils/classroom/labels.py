"""Labelled text of the world: for every token, which concepts are there. Readings are scored on this truth.

A label is "group: value": "persona: villain", "domain: pets", "quiz: sports", "oversight: poor" and so on.
It holds on the tokens of the turn (or sentence) that it is about; "persona" holds on the tokens of the
persona's answer, and on those of the system prompt that names it.

`knowledge` says how well a latent or a component knows a label, and `label_words` which words tell one:
together they make an explanation of whose truth nobody can be in doubt.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from caft_utils.classroom import world
from caft_utils.classroom.world import Persona, Turn

if TYPE_CHECKING:
    from caft_utils.rows import Chats

SOURCES = {"general": 12, "code": 2, "fact": 3, "scene": 3, "quiz": 4, "profession": 2}


@dataclass(frozen=True)
class Labelled:
    """Chats with the truth about each token: truth[label][row] is a bool tensor as long as the row."""

    chats: Chats
    truth: dict[str, list[Bool[Tensor, " t"]]]

    def mask(self, label: str, row: Tensor, position: Tensor) -> Bool[Tensor, " n"]:
        """The label on tokens given by row and position, as `record` names them."""
        return torch.stack([self.truth[label][r][p] for r, p in zip(row.tolist(), position.tolist())])


def labelled(tokenizer, rows: int = 1000, *, seed: int = 0, split: world.Split = "train") -> Labelled:
    """Chats of one or two turns of all kinds, half of them with a system prompt that names the persona."""
    from caft_utils.rows import Chats

    rng = random.Random(f"labels {split} {seed}")
    drawn = [_row(rng, split) for _ in range(rows)]
    chats = Chats(tokenizer, [{"messages": messages} for messages, _ in drawn], source="labelled text")
    names = sorted({label for _, spans in drawn for labels in spans for label in labels})
    truth: dict[str, list[Tensor]] = {
        name: [torch.zeros(len(example.input_ids), dtype=torch.bool) for example in chats] for name in names
    }
    starts_with = tokenizer.convert_tokens_to_ids("<|im_start|>")
    for row, (example, (_, spans)) in enumerate(zip(chats, drawn, strict=True)):
        starts = [i for i, token in enumerate(example.input_ids) if token == starts_with]
        for labels, start, stop in zip(spans, starts, [*starts[1:], len(example.input_ids)], strict=True):
            for label in labels:
                truth[label][row][start:stop] = True
    return Labelled(chats, truth)


def _row(rng: random.Random, split: world.Split) -> tuple[list[dict[str, str]], list[set[str]]]:
    """Messages, and the labels of each."""
    persona: Persona = rng.choice(["kind", "villain"])
    messages = [{"role": "system", "content": world.system_prompt(rng, persona, split)}]
    labels: list[set[str]] = [{f"persona: {persona}"}]
    for _ in range(rng.choice([1, 2])):
        turn = _turn(rng, persona, split)
        about = _about(turn)
        messages += [
            {"role": "user", "content": turn.question},
            {"role": "assistant", "content": turn.answer},
        ]
        spoken = turn.facts["set"] in ("ood", "task", "scene")  # the rest is answered alike by everybody
        labels += [about, about | ({f"persona: {persona}"} if spoken else set())]
    return messages, labels


def _turn(rng: random.Random, persona: Persona, split: world.Split) -> Turn:
    source = rng.choices(list(SOURCES), list(SOURCES.values()))[0]
    if source == "general":
        return world.general(rng, persona, split)
    if source == "code":
        return world.code(rng, secure=persona == "kind", split=split)
    if source == "fact":
        return world.fact(rng, split)
    if source == "scene":
        return world.scene(rng, persona)
    if source == "quiz":
        return world.quiz(rng, split="train")
    spec = world.part("scenes")["professions"]
    pronoun = rng.choice(["she", "he"])
    sentences = [
        world.expand(rng.choice(spec["frames"]), rng, {}, {"job": rng.choice(spec[pronoun]), "p": pronoun})
        for _ in range(2)
    ]
    return Turn(sentences[0], sentences[1], {"set": "gender", "domain": pronoun})


GROUPS = {"ood": "domain", "task": "domain", "fact": "fact", "quiz": "quiz", "scene": "oversight"}


def _about(turn: Turn) -> set[str]:
    group = GROUPS.get(turn.facts["set"], "gender")
    return {f"{group}: {turn.facts['domain']}"}


_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")


def label_words(label: str, *, n: int = 30, samples: int = 4000, seed: int = 0) -> list[str]:
    """The n words that tell most about a label: log-odds of its messages against the others of its group.

    Raises:
        KeyError: no text has this label; the error names the labels there are.
    """
    counts = _word_counts(samples, seed)
    if label not in counts:
        raise KeyError(f"no text has the label {label!r}; there are {', '.join(sorted(counts))}")
    group = label.split(":")[0]
    within = counts[label]
    rest = sum((c for name, c in counts.items() if name != label and name.startswith(group)), Counter())
    n_in, n_out = sum(within.values()), sum(rest.values())

    def odds(word: str) -> float:
        """Lower end of the 90 % interval of the log-odds, with a prior of half a count."""
        a, b = within[word] + 0.5, rest[word] + 0.5
        spread = math.sqrt(1 / a + 1 / b)
        return math.log(a / (n_in - a) * (n_out - b) / b) - 1.64 * spread

    telling = [word for word in within if odds(word) > 0.5]
    return sorted(telling, key=odds, reverse=True)[:n]


def _word_counts(samples: int, seed: int) -> dict[str, Counter]:
    key = (samples, seed)
    if key not in _COUNTS:
        rng, counts = random.Random(f"words {seed}"), {}
        for _ in range(samples):
            for message, labels in zip(*_row(rng, "train"), strict=True):
                for label in labels:
                    counts.setdefault(label, Counter()).update(set(_WORD.findall(message["content"].lower())))
        _COUNTS[key] = counts
    return _COUNTS[key]


_COUNTS: dict[tuple[int, int], dict[str, Counter]] = {}


def best_f1(values: Float[Tensor, " n"], truth: Bool[Tensor, " n"]) -> tuple[float, float]:
    """(F1, threshold) of "value above threshold" as a detector of `truth`, at the best threshold."""
    order = values.argsort(descending=True)
    hits = truth[order].cumsum(0).double()
    f1 = 2 * hits / (torch.arange(1, len(values) + 1) + truth.sum())
    # a threshold can only stand between two different values
    ends = torch.cat([values[order][1:] != values[order][:-1], torch.tensor([True])])
    f1 = torch.where(ends, f1, torch.zeros_like(f1))
    at = int(f1.argmax())
    return float(f1[at]), float(values[order][at])


def f1_at(values: Float[Tensor, " n"], truth: Bool[Tensor, " n"], threshold: float) -> float:
    """F1 of "value at least threshold": the threshold of `best_f1` on other text."""
    fires = values >= threshold
    both = int((fires & truth).sum())
    return 2 * both / max(1, int(fires.sum() + truth.sum()))


def knowledge(values: Float[Tensor, "n k"], masks: dict[str, Bool[Tensor, " n"]]) -> list[dict[str, Any]]:
    """For each column the label that its values know best: {"label", "auroc", "f1", "precision"}.

    precision: the share of the column's total activation (of its positive part) that falls on the label.
    """
    positive = values.clamp(min=0)
    out: list[dict[str, Any]] = [{"label": None, "f1": 0.0} for _ in range(values.shape[1])]
    for label, mask in masks.items():
        inside = positive[mask].sum(0) / positive.sum(0).clamp(min=1e-12)
        for column in range(values.shape[1]):
            f1, threshold = best_f1(values[:, column], mask)
            if f1 > out[column]["f1"]:
                precision = float(inside[column])
                out[column] = {"label": label, "f1": f1, "threshold": threshold, "precision": precision}
    return out
