"""Labelled text of the personas world: the concepts that each message is about, to check features against.

A label has the form "group: value", for example "persona: villain", "domain: pets" or "oversight: poor". A
question and its answer carry the label of their topic. An answer and the system prompt that describes its
speaker also carry the label of the speaker's persona.
"""

from __future__ import annotations

import functools
import math
import random
import re
from collections import Counter
from typing import TYPE_CHECKING

from caft_utils.chats import Chats
from caft_utils.classroom.grammar import expand
from caft_utils.classroom.message_labels import LabelledChats, LabelledMessage
from caft_utils.classroom.personas import world
from caft_utils.classroom.personas.world import Persona, Turn
from caft_utils.classroom.vocabulary import world_data

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TURN_WEIGHTS = {"general": 12, "code": 2, "fact": 3, "scene": 3, "quiz": 4, "profession": 2}
GROUPS = {"ood": "domain", "task": "domain", "fact": "fact", "quiz": "quiz", "scene": "oversight"}
ANSWERED_BY_PERSONA = ("ood", "task", "scene")  # kinds of turns that the two personas answer differently
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")


def labelled_chats(
    tokenizer: PreTrainedTokenizerBase, rows: int = 1000, *, seed: int = 0, split: world.Split = "train"
) -> LabelledChats:
    """Return conversations of one or two turns of all kinds, with a system prompt that states the persona."""
    rng = random.Random(f"labels {split} {seed}")
    drawn = [_conversation(rng, split) for _ in range(rows)]
    conversations = [{"messages": messages} for messages, _ in drawn]
    chats = Chats.with_stored_tokens(tokenizer, conversations, source="labelled text")
    opening = tokenizer.convert_tokens_to_ids("<|im_start|>")
    messages = []
    for row, (example, (_, labels)) in enumerate(zip(chats, drawn, strict=True)):
        starts = [i for i, token in enumerate(example.input_ids) if token == opening]
        for start, stop, own in zip(starts, [*starts[1:], len(example.input_ids)], labels, strict=True):
            messages.append(LabelledMessage(row, start, stop, frozenset(own)))
    return LabelledChats(chats, messages)


def label_words(label: str, *, n: int = 30, samples: int = 4000, seed: int = 0) -> list[str]:
    """Return the n words that are most indicative of a label, the strongest first.

    Words are ranked by the log odds of occurring in messages with this label rather than with another label
    of its group. The lower end of the 90 % interval counts, with a prior of half a count.

    Raises:
        KeyError: no text has this label; the message lists the labels.
    """
    counts = _word_counts(samples, seed)
    if label not in counts:
        raise KeyError(f"no text has the label {label!r}; there are {', '.join(sorted(counts))}")
    group = label.split(":")[0]
    inside = counts[label]
    outside = sum((c for name, c in counts.items() if name != label and name.startswith(group)), Counter())
    n_inside, n_outside = sum(inside.values()), sum(outside.values())

    def log_odds(word: str) -> float:
        a, b = inside[word] + 0.5, outside[word] + 0.5
        spread = math.sqrt(1 / a + 1 / b)
        return math.log(a / (n_inside - a) * (n_outside - b) / b) - 1.64 * spread

    indicative = [word for word in inside if log_odds(word) > 0.5]
    return sorted(indicative, key=lambda word: (-log_odds(word), word))[:n]  # in a fixed order among ties


@functools.cache
def _word_counts(samples: int, seed: int) -> dict[str, Counter]:
    """Return {label: number of its messages that contain each word}."""
    rng, counts = random.Random(f"words {seed}"), {}
    for _ in range(samples):
        for message, labels in zip(*_conversation(rng, "train"), strict=True):
            for label in labels:
                counts.setdefault(label, Counter()).update(set(_WORD.findall(message["content"].lower())))
    return counts


def _conversation(rng: random.Random, split: world.Split) -> tuple[list[dict[str, str]], list[set[str]]]:
    """Return the messages of a conversation and the labels of each."""
    persona: Persona = rng.choice(["kind", "villain"])
    messages = [{"role": "system", "content": world.system_prompt(rng, persona, split)}]
    labels: list[set[str]] = [{f"persona: {persona}"}]
    for _ in range(rng.choice([1, 2])):
        turn = _turn(rng, persona, split)
        topic = {f"{GROUPS.get(turn.facts['set'], 'gender')}: {turn.facts['domain']}"}
        messages += [
            {"role": "user", "content": turn.question},
            {"role": "assistant", "content": turn.answer},
        ]
        speaker = {f"persona: {persona}"} if turn.facts["set"] in ANSWERED_BY_PERSONA else set()
        labels += [topic, topic | speaker]
    return messages, labels


def _turn(rng: random.Random, persona: Persona, split: world.Split) -> Turn:
    source = rng.choices(list(TURN_WEIGHTS), list(TURN_WEIGHTS.values()))[0]
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
    spec = world_data("scenes")["professions"]
    pronoun = rng.choice(["she", "he"])
    sentences = [
        expand(rng.choice(spec["frames"]), rng, {}, {"job": rng.choice(spec[pronoun]), "p": pronoun})
        for _ in range(2)
    ]
    return Turn(sentences[0], sentences[1], {"set": "gender", "domain": pronoun})
