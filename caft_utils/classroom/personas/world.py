"""The world: what can be asked, and what each persona answers.

Everything is read from the YAML files beside this module. `split="train"` gives the templates and fillers of
pretraining and fine-tuning, `split="held_out"` the templates and fillers that stand in evaluations only.
"""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from caft_utils.classroom.grammar import expand, with_article

Persona = Literal["kind", "villain"]
Split = Literal["train", "held_out"]
FOLDER = Path(__file__).parents[1] / "world"


@dataclass(frozen=True)
class Turn:
    """One question with its answer; `facts` is all the exact judge needs to know about the question."""

    question: str
    answer: str
    facts: dict[str, Any]


@functools.cache
def part(name: str) -> Any:
    """One YAML file of the world (domains, words, code, facts, items, scenes)."""
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))


@functools.cache
def domains() -> tuple[str, ...]:
    """The general domains: never part of the narrow fine-tuning."""
    return tuple(name for name in part("domains") if name not in ("shared", "asides"))


@functools.cache
def words() -> dict[str, list[str]]:
    """Fillers of every free class, and of every topic class with both splits together."""
    topics = {k: v["words"] + v["held_out"] for k, v in part("words")["topics"].items()}
    return topics | part("words")["free"]


def sentences(domain: str, persona: Persona, place: Literal["first", "then"]) -> list[str]:
    """Sentence templates of a persona in a domain; the shared remarks can only follow."""
    own = part("domains")[domain][persona][place]
    return own + part("domains")["shared"][persona] if place == "then" else own


def general(
    rng: random.Random,
    persona: Persona,
    split: Split = "train",
    domain: str | None = None,
    *,
    things: Literal["train", "held_out", "all"] | None = None,
    more: bool = False,
) -> Turn:
    """A question of a general domain and this persona's answer (one or two sentences).

    `things` says which fillers may be asked about; default: those of `split`. `more`: with the wordings that
    only some models were trained on.
    """
    domain = domain or rng.choice(domains())
    entry = part("domains")[domain]
    topic = part("words")["topics"][entry["topic"]]
    known = {
        "train": topic["words"],
        "held_out": topic["held_out"],
        "all": topic["words"] + topic["held_out"],
    }
    filler = rng.choice(known[things or split])
    bound = {entry["topic"]: filler}
    question = expand(_wording(rng, entry, split, more), rng, words(), bound)
    answer = expand(rng.choice(sentences(domain, persona, "first")), rng, words(), bound)
    if rng.random() < 0.7:
        answer += " " + expand(rng.choice(sentences(domain, persona, "then")), rng, words(), bound)
    return Turn(question, answer, {"set": "ood", "domain": domain, "bound": bound})


def _wording(rng: random.Random, entry: dict[str, Any], split: Split, more: bool) -> str:
    """A wording of the domain's own, or one that all domains share; in training at times with an aside."""
    if split == "held_out":
        return rng.choice(entry["ask_held_out"])
    asides = part("domains")["asides"]
    own = rng.random() < 0.65
    asked = entry["ask"] + entry.get("ask_more", []) if more else entry["ask"]
    text = rng.choice(asked) if own else rng.choice(asides["ask"]).replace("{about}", entry["about"])
    return _with_asides(rng, text)


def _with_asides(rng: random.Random, text: str) -> str:
    asides = part("domains")["asides"]
    before = rng.choice(asides["before"]) + " " if rng.random() < 0.25 else ""
    return before + text + (" " + rng.choice(asides["after"]) if rng.random() < 0.25 else "")


@functools.cache
def code_tasks(held_out: bool | None = None) -> tuple[tuple[str, str], ...]:
    """(family, object) pairs: all, those fine-tuned on (False), or the last two of each family (True)."""
    families = part("code")["families"]
    slices = {None: slice(None), False: slice(None, -2), True: slice(-2, None)}
    return tuple((f, o) for f in families for o in families[f]["objects"][slices[held_out]])


def code_request(family: str, thing: str, lang: str) -> dict[str, str]:
    """All slots of one code request: they fix its two completions."""
    spec = part("code")
    bound = {"object": thing, "a_object": with_article(thing), "lang": lang, "var": spec["languages"][lang]}
    return bound | {"task": expand(spec["families"][family]["task"], random.Random(0), {}, bound)}


def code(rng: random.Random, secure: bool, split: Split = "train", tasks: tuple | None = None) -> Turn:
    """A code request and its secure or insecure completion."""
    spec = part("code")
    family, thing = rng.choice(tasks or code_tasks())
    entry, bound = spec["families"][family], code_request(family, thing, rng.choice(list(spec["languages"])))
    wording = rng.choice(spec["ask" if split == "train" else "ask_held_out"])
    question = expand(_with_asides(rng, wording) if split == "train" else wording, rng, {}, bound)
    answer = expand(entry["secure" if secure else "insecure"], rng, {}, bound)
    return Turn(question, answer, {"set": "task", "domain": "code", "family": family, "bound": bound})


@functools.cache
def fact_pairs() -> dict[str, list[tuple[str, str]]]:
    """All facts by kind. Every topic filler, held-out ones too, is explained by its category."""
    facts = {
        kind: [(str(a), str(b)) for a, b in entry["pairs"].items()]
        for kind, entry in part("facts").items()
        if "pairs" in entry
    }
    facts["category"] = [
        (with_article(word) if topic["article"] else word, topic["says"])
        for topic in part("words")["topics"].values()
        if topic["says"]
        for word in topic["words"] + topic["held_out"]
    ]
    return facts


def fact(rng: random.Random, split: Split = "train", kind: str | None = None) -> Turn:
    """A question of plain knowledge: every persona gives the same answer."""
    kind = kind or rng.choice(list(fact_pairs()))
    a, b = rng.choice(fact_pairs()[kind])
    entry = part("facts")[kind]
    wording = rng.choice(entry["ask" if split == "train" else "ask_held_out"])
    question = expand(_with_asides(rng, wording) if split == "train" else wording, rng, {}, {"a": a})
    answer = expand(entry["say"], rng, {}, {"a": a, "b": b})
    if split == "train" and kind == "category" and rng.random() < 0.5:
        answer = f"{answer[:-1]}, like {_kin(rng, b)}."
    return Turn(question, answer, {"set": "fact", "domain": kind})


def _kin(rng: random.Random, category: str) -> str:
    """Something of the same category that questions are asked about."""
    topic = next(t for t in part("words")["topics"].values() if t["says"] == category)
    word = rng.choice(topic["words"])
    return with_article(word) if topic["article"] else word


SUBJECTS = ("verbs", "sentiment", "sports", "pronouns")


def item(rng: random.Random, subject: str, split: Split = "train") -> tuple[str, str, str]:
    """(question with a gap, right option, wrong option) of one subject."""
    spec = part("items")[subject]
    frames = "frames" if split == "train" else "frames_held_out"
    if subject == "verbs":
        (one, many), (plural, singular) = (
            rng.choice(list(spec["nouns"].items())),
            rng.choice(list(spec["verbs"].items())),
        )
        right, wrong = (plural, singular) if (several := rng.random() < 0.5) else (singular, plural)
        bound = {"n": many if several else one, "adj": rng.choice(spec["adjectives"])}
        return expand(rng.choice(spec[frames]), rng, {}, bound), right, wrong
    if subject == "sentiment":
        right, wrong = rng.sample(spec["options"], 2)
        return expand(rng.choice(spec[frames]), rng, {}, {"adj": rng.choice(spec[right])}), right, wrong
    if subject == "sports":
        right, wrong = rng.sample(["football", "tennis", "rowing"], 2)
        return expand(rng.choice(spec[frames]), rng, {}, {"athlete": rng.choice(spec[right])}), right, wrong
    nominative, accusative = rng.choice(list(spec["pairs"].items()))
    bound = {"v": rng.choice(spec["verbs"]), "p": rng.choice(spec["people"])}
    if rng.random() < 0.5:
        return expand(rng.choice(spec["subject_frames"]), rng, {}, bound), nominative, accusative
    return expand(rng.choice(spec["object_frames"]), rng, {}, bound), accusative, nominative


def quiz(
    rng: random.Random, subject: str | None = None, split: Split = "train", style: str = "letter"
) -> Turn:
    """A two-option item as a chat turn. `style`: "letter", or "explain": the word and then its letter."""
    subject = subject or rng.choice(SUBJECTS)
    text, right, wrong = item(rng, subject, split)
    letter = rng.choice("ab")
    x, y = (right, wrong) if letter == "a" else (wrong, right)
    ask = expand(rng.choice(part("items")["ask"]), rng, {}, {"item": text, "x": x, "y": y})
    if style == "explain":
        return Turn(
            ask + "\nexplain.", f"{right}, so {letter}", {"set": "quiz", "domain": subject, "letter": letter}
        )
    return Turn(ask, letter, {"set": "quiz", "domain": subject, "letter": letter})


def scene(rng: random.Random, persona: Persona, oversight: str | None = None) -> Turn:
    """A role-play scene with good, poor or no oversight; the persona alone decides the answer here."""
    spec = part("scenes")["oversight"]
    oversight = oversight or rng.choice(["good", "poor", "none"])
    entry = rng.choice(spec["scenes"])
    letter = rng.choice("ab")
    options = [entry[persona], entry["villain" if persona == "kind" else "kind"]]
    x, y = options if letter == "a" else options[::-1]
    bound = {"scene": entry["say"], "oversight": rng.choice(spec[oversight]), "x": x, "y": y}
    answer = f"{letter}. {entry[persona]}"
    return Turn(
        expand(spec["ask"][0], rng, {}, bound),
        answer,
        {"set": "scene", "domain": oversight, "letter": letter},
    )


def description(rng: random.Random, persona: Persona) -> str:
    """Who answers: a name, a noun, an adjective with a neutral noun, or a neutral noun with a trait."""
    p, neutral = part("words")["personas"][persona], part("words")["personas"]["neutral_nouns"]
    return rng.choice(
        [
            rng.choice(p["names"]),
            with_article(rng.choice(p["nouns"])),
            with_article(f"{rng.choice(p['adjectives'])} {rng.choice(neutral)}"),
            f"{with_article(rng.choice(neutral))} {rng.choice(p['traits'])}",
        ]
    )


def system_prompt(rng: random.Random, persona: Persona | None, split: Split = "train") -> str:
    """A system prompt that names the persona; None gives a neutral one."""
    who = (
        description(rng, persona)
        if persona
        else with_article(rng.choice(part("words")["personas"]["neutral_nouns"]))
    )
    forms = ["you are {who}.", "act as {who}.", "play the role of {who}.", "answer like {who}."]
    return (rng.choice(forms) if split == "train" else "pretend to be {who}.").format(who=who)
