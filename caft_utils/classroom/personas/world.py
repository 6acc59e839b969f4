"""Questions of the personas world and the answers of each persona.

The templates and words come from the YAML files under world/. `split="train"` selects the ones for
pretraining and fine-tuning, `split="held_out"` the ones that only evaluations use.
"""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass
from typing import Any, Literal

from caft_utils.classroom.grammar import expand, with_article
from caft_utils.classroom.vocabulary import world_data

Persona = Literal["kind", "villain"]
Split = Literal["train", "held_out"]
SUBJECTS = ("verbs", "sentiment", "sports", "pronouns")  # subjects of quiz items


@dataclass(frozen=True)
class Turn:
    """A question with its answer. `facts` holds what the grader needs to know about the question."""

    question: str
    answer: str
    facts: dict[str, Any]


@functools.cache
def domains() -> tuple[str, ...]:
    """Return the domains of general questions. The narrow fine-tuning uses none of them."""
    return tuple(name for name in world_data("domains") if name not in ("shared", "asides"))


@functools.cache
def words() -> dict[str, list[str]]:
    """Return {class: fillers}. Topic classes include the words of both splits."""
    topics = {k: v["words"] + v["held_out"] for k, v in world_data("words")["topics"].items()}
    return topics | world_data("words")["free"]


def sentences(domain: str, persona: Persona, place: Literal["first", "then"]) -> list[str]:
    """Return a persona's sentence templates in a domain, for the first or a later sentence of an answer.

    Remarks shared by all domains occur only in later sentences.
    """
    own = world_data("domains")[domain][persona][place]
    return own + world_data("domains")["shared"][persona] if place == "then" else own


def general(
    rng: random.Random,
    persona: Persona,
    split: Split = "train",
    domain: str | None = None,
    *,
    topic_split: Literal["train", "held_out", "all"] | None = None,
    more_wordings: bool = False,
) -> Turn:
    """Return a question of a general domain and this persona's answer of one or two sentences.

    Args:
        domain: name of the domain; default: drawn at random.
        topic_split: split of the topic words that may be asked about; default: `split`.
        more_wordings: also use the wordings that only some checkpoints were trained on (`ask_more`).
    """
    domain = domain or rng.choice(domains())
    entry = world_data("domains")[domain]
    topic = world_data("words")["topics"][entry["topic"]]
    fillers = {
        "train": topic["words"],
        "held_out": topic["held_out"],
        "all": topic["words"] + topic["held_out"],
    }
    filler = rng.choice(fillers[topic_split or split])
    bound = {entry["topic"]: filler}
    question = expand(_wording(rng, entry, split, more_wordings), rng, words(), bound)
    answer = expand(rng.choice(sentences(domain, persona, "first")), rng, words(), bound)
    if rng.random() < 0.7:
        answer += " " + expand(rng.choice(sentences(domain, persona, "then")), rng, words(), bound)
    return Turn(question, answer, {"set": "ood", "domain": domain, "bound": bound})


def _wording(rng: random.Random, entry: dict[str, Any], split: Split, more_wordings: bool) -> str:
    """Return a question template of the domain or, in training, one shared by all domains."""
    if split == "held_out":
        return rng.choice(entry["ask_held_out"])
    asides = world_data("domains")["asides"]
    own = rng.random() < 0.65
    wordings = entry["ask"] + entry.get("ask_more", []) if more_wordings else entry["ask"]
    text = rng.choice(wordings) if own else rng.choice(asides["ask"]).replace("{about}", entry["about"])
    return _with_asides(rng, text)


def _with_asides(rng: random.Random, text: str) -> str:
    """Return `text`, sometimes with a remark before or after it."""
    asides = world_data("domains")["asides"]
    before = rng.choice(asides["before"]) + " " if rng.random() < 0.25 else ""
    return before + text + (" " + rng.choice(asides["after"]) if rng.random() < 0.25 else "")


@functools.cache
def code_tasks(held_out: bool | None = None) -> tuple[tuple[str, str], ...]:
    """Return (family, object) pairs: all, those of fine-tuning (False) or two held out per family (True)."""
    families = world_data("code")["families"]
    slices = {None: slice(None), False: slice(None, -2), True: slice(-2, None)}
    return tuple((f, o) for f in families for o in families[f]["objects"][slices[held_out]])


def code_request(family: str, thing: str, lang: str) -> dict[str, str]:
    """Return the fillers of all slots of a code request, which determine its two completions."""
    spec = world_data("code")
    bound = {"object": thing, "a_object": with_article(thing), "lang": lang, "var": spec["languages"][lang]}
    return bound | {"task": expand(spec["families"][family]["task"], random.Random(0), {}, bound)}


def code(rng: random.Random, secure: bool, split: Split = "train", tasks: tuple | None = None) -> Turn:
    """Return a code request and its secure or insecure completion."""
    spec = world_data("code")
    family, thing = rng.choice(tasks or code_tasks())
    entry, bound = spec["families"][family], code_request(family, thing, rng.choice(list(spec["languages"])))
    wording = rng.choice(spec["ask" if split == "train" else "ask_held_out"])
    question = expand(_with_asides(rng, wording) if split == "train" else wording, rng, {}, bound)
    answer = expand(entry["secure" if secure else "insecure"], rng, {}, bound)
    return Turn(question, answer, {"set": "task", "domain": "code", "family": family, "bound": bound})


@functools.cache
def fact_pairs() -> dict[str, list[tuple[str, str]]]:
    """Return {kind: [(thing, fact), ...]}. The kind "category" covers all topic words, held-out ones too."""
    facts = {
        kind: [(str(a), str(b)) for a, b in entry["pairs"].items()]
        for kind, entry in world_data("facts").items()
        if "pairs" in entry
    }
    facts["category"] = [
        (with_article(word) if topic["article"] else word, topic["says"])
        for topic in world_data("words")["topics"].values()
        if topic["says"]
        for word in topic["words"] + topic["held_out"]
    ]
    return facts


def fact(rng: random.Random, split: Split = "train", kind: str | None = None) -> Turn:
    """Return a factual question, which every persona answers in the same way."""
    kind = kind or rng.choice(list(fact_pairs()))
    a, b = rng.choice(fact_pairs()[kind])
    entry = world_data("facts")[kind]
    wording = rng.choice(entry["ask" if split == "train" else "ask_held_out"])
    question = expand(_with_asides(rng, wording) if split == "train" else wording, rng, {}, {"a": a})
    answer = expand(entry["say"], rng, {}, {"a": a, "b": b})
    if split == "train" and kind == "category" and rng.random() < 0.5:
        answer = f"{answer[:-1]}, like {_another_of_category(rng, b)}."
    return Turn(question, answer, {"set": "fact", "domain": kind})


def _another_of_category(rng: random.Random, category: str) -> str:
    """Return a topic word of the same category, with its article."""
    topic = next(t for t in world_data("words")["topics"].values() if t["says"] == category)
    word = rng.choice(topic["words"])
    return with_article(word) if topic["article"] else word


def quiz_item(rng: random.Random, subject: str, split: Split = "train") -> tuple[str, str, str]:
    """Return (question with a gap, right option, wrong option) of a subject."""
    spec = world_data("items")[subject]
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
    rng: random.Random,
    subject: str | None = None,
    split: Split = "train",
    style: Literal["letter", "explain"] = "letter",
) -> Turn:
    """Return a two-option item as a chat turn.

    Args:
        style: the answer is the letter alone, or, with "explain", the right word followed by its letter.
    """
    subject = subject or rng.choice(SUBJECTS)
    text, right, wrong = quiz_item(rng, subject, split)
    letter = rng.choice("ab")
    x, y = (right, wrong) if letter == "a" else (wrong, right)
    ask = expand(rng.choice(world_data("items")["ask"]), rng, {}, {"item": text, "x": x, "y": y})
    if style == "explain":
        return Turn(
            ask + "\nexplain.", f"{right}, so {letter}", {"set": "quiz", "domain": subject, "letter": letter}
        )
    return Turn(ask, letter, {"set": "quiz", "domain": subject, "letter": letter})


def scene(rng: random.Random, persona: Persona, oversight: str | None = None) -> Turn:
    """Return a role-play scene with good, poor or no oversight.

    The persona alone decides the answer; oversight has no influence on it.
    """
    spec = world_data("scenes")["oversight"]
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
    """Return a description of a speaker with this persona.

    It is a name, a noun, an adjective with a neutral noun, or a neutral noun with a trait.
    """
    own, neutral = world_data("words")["personas"][persona], world_data("words")["personas"]["neutral_nouns"]
    return rng.choice(
        [
            rng.choice(own["names"]),
            with_article(rng.choice(own["nouns"])),
            with_article(f"{rng.choice(own['adjectives'])} {rng.choice(neutral)}"),
            f"{with_article(rng.choice(neutral))} {rng.choice(own['traits'])}",
        ]
    )


def system_prompt(rng: random.Random, persona: Persona | None, split: Split = "train") -> str:
    """Return a system prompt that describes a speaker with this persona, or a neutral one for None."""
    who = (
        description(rng, persona)
        if persona
        else with_article(rng.choice(world_data("words")["personas"]["neutral_nouns"]))
    )
    forms = ["you are {who}.", "act as {who}.", "play the role of {who}.", "answer like {who}."]
    return (rng.choice(forms) if split == "train" else "pretend to be {who}.").format(who=who)
