"""Labelled text of the world: for every message, which concepts are there. Readings are scored on this truth.

A label is "group: value": "persona: villain", "domain: pets", "quiz: sports", "oversight: poor" and so on.
A question and its answer carry the label of what they are about; an answer carries its speaker's persona as
well, and so does the system prompt that names it.

`knowledge` says how well a latent or a component knows each label, and `label_words` which words tell one:
together they make an explanation of whose truth nobody can be in doubt.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from caft_utils.classroom.personas import world
from caft_utils.classroom.personas.world import Persona, Turn

if TYPE_CHECKING:
    from caft_utils.chats import Chats

SOURCES = {"general": 12, "code": 2, "fact": 3, "scene": 3, "quiz": 4, "profession": 2}


@dataclass(frozen=True)
class Message:
    """Tokens start to stop of a row, and their labels."""

    row: int
    start: int
    stop: int
    labels: frozenset[str]


@dataclass(frozen=True)
class LabelledChats:
    """Chats, and the labels of each of their messages."""

    chats: Chats
    messages: list[Message]

    @property
    def labels(self) -> list[str]:
        return sorted({label for message in self.messages for label in message.labels})

    def truth(self, label: str) -> Bool[Tensor, " m"]:
        """Which messages carry the label."""
        return torch.tensor([label in message.labels for message in self.messages])


def labelled(tokenizer, rows: int = 1000, *, seed: int = 0, split: world.Split = "train") -> LabelledChats:
    """Chats of one or two turns of all kinds, with a system prompt that names the persona."""
    from caft_utils.chats import Chats

    rng = random.Random(f"labels {split} {seed}")
    drawn = [_row(rng, split) for _ in range(rows)]
    chats = Chats(tokenizer, [{"messages": messages} for messages, _ in drawn], source="labelled text")
    opening = tokenizer.convert_tokens_to_ids("<|im_start|>")
    messages = []
    for row, (example, (_, labels)) in enumerate(zip(chats, drawn, strict=True)):
        starts = [i for i, token in enumerate(example.input_ids) if token == opening]
        for start, stop, own in zip(starts, [*starts[1:], len(example.input_ids)], labels, strict=True):
            messages.append(Message(row, start, stop, frozenset(own)))
    return LabelledChats(chats, messages)


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


def strongest(
    model, text: LabelledChats, layer: int, values: Callable[[Tensor], Float[Tensor, "n k"]]
) -> Float[Tensor, "m k"]:
    """The largest value in each message, but for the first token of a row; `values` reads hidden states."""
    from caft_utils.residual import stream_activations

    size = max(len(example.input_ids) for example in text.chats)
    owner = torch.full((len(text.chats), size), -1)
    for number, message in enumerate(text.messages):
        owner[message.row, max(1, message.start) : message.stop] = number
    out: Tensor | None = None
    for part in stream_activations(model, text.chats, [layer]):
        read = values(part.hidden[layer]).float().cpu()
        where = owner[part.row, part.position]
        if out is None:
            out = torch.full((len(text.messages), read.shape[1]), -torch.inf)
        where, read = where[where >= 0], read[where >= 0]
        out.scatter_reduce_(0, where[:, None].expand_as(read), read, "amax")
    return out


class _Thresholds:
    """The thresholds that can stand between the values of each column, to be tried with any truth."""

    def __init__(self, values: Float[Tensor, "m k"]):
        self.ordered, self._order = values.T.sort(dim=1, descending=True)
        self._equal = self.ordered[:, :-1] == self.ordered[:, 1:]  # no threshold stands between equal values

    def best(self, truth: Bool[Tensor, " m"]) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
        hits = truth.float()[self._order].cumsum(1)
        said_yes = torch.arange(1, len(truth) + 1)
        f1 = 2 * hits / (said_yes + truth.sum())
        f1[:, :-1][self._equal] = 0
        best, at = f1.max(1)
        return best, self.ordered.gather(1, at[:, None])[:, 0]


def best_f1(values: Float[Tensor, "m k"], truth: Bool[Tensor, " m"]) -> tuple[Tensor, Tensor]:
    """For each column (F1, threshold) of "value at least threshold", at the threshold where F1 is best."""
    return _Thresholds(values).best(truth)


def f1_at(values: Float[Tensor, " m"], truth: Bool[Tensor, " m"], threshold: float) -> float:
    """F1 of "value at least threshold", for a threshold that was found on other text."""
    fires = values >= threshold
    return 2 * int((fires & truth).sum()) / max(1, int(fires.sum() + truth.sum()))


def knowledge(values: Float[Tensor, "m k"], text: LabelledChats) -> dict[str, Float[Tensor, " k"]]:
    """By label, how well each column knows it: the best F1 with which a threshold on it tells the label."""
    thresholds = _Thresholds(values)  # sorted once for all labels
    return {label: thresholds.best(text.truth(label))[0] for label in text.labels}
