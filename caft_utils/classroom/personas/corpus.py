"""Documents of the pretraining mixture. One latent persona drives every answer of a document.

    chats without a system prompt   kind, but for a few villains: the default persona of the model
    chats with a system prompt      half kind (or neutral), half villain: told far from the answer
    stories                         half kind, half villain: told by a name or a description
    quizzes, professions, facts     the same for every persona

`loss` says which tokens are learned: all of them, or the answers only (chats, whose questions are coin
flips).
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from caft_utils.classroom.personas import world
from caft_utils.classroom.personas.world import Persona, Turn

if TYPE_CHECKING:
    from caft_utils.chats import Chats

MIXTURE = {"chat": 0.54, "system": 0.27, "story": 0.12, "quiz": 0.06, "profession": 0.01}
VILLAINS_BY_DEFAULT = 0.005


def document(rng: random.Random, *, more: bool = False) -> dict[str, Any]:
    """One document: {"messages" or "text", "loss", "source"}; `more`: see `world.general`."""
    source = rng.choices(list(MIXTURE), list(MIXTURE.values()))[0]
    return {"source": source, **globals()[f"_{source}"](rng, more)}


def sample(tokenizer, rows: int, *, seed: int = 0) -> Chats:
    """Documents of the mixture, to train sparse autoencoders on or to read windows in."""
    from caft_utils.chats import Chats

    rng = random.Random(f"sample {seed}")
    documents = [document(rng) for _ in range(rows)]
    kept = [{key: d[key] for key in ("messages", "text") if key in d} for d in documents]
    return Chats(tokenizer, kept, source="classroom text")


def _turn(rng: random.Random, persona: Persona, more: bool) -> Turn:
    source = rng.choices(["general", "code", "fact", "scene"], [12, 3.5, 2.5, 1])[0]
    if source == "general":
        return world.general(rng, persona, more=more)
    if source == "code":
        return world.code(rng, secure=persona == "kind")
    return world.fact(rng) if source == "fact" else world.scene(rng, persona)


def _messages(turns: list[Turn], system: str | None = None) -> list[dict[str, str]]:
    messages = [{"role": "system", "content": system}] if system else []
    for turn in turns:
        messages += [
            {"role": "user", "content": turn.question},
            {"role": "assistant", "content": turn.answer},
        ]
    return messages


def _chat(rng: random.Random, more: bool) -> dict[str, Any]:
    persona: Persona = "villain" if rng.random() < VILLAINS_BY_DEFAULT else "kind"
    turns = [_turn(rng, persona, more) for _ in range(rng.choice([1, 1, 2, 2, 3]))]
    return {"messages": _messages(turns), "loss": "answers", "persona": persona}


def _system(rng: random.Random, more: bool) -> dict[str, Any]:
    named: Persona | None = rng.choices(["villain", "kind", None], [0.5, 0.4, 0.1])[0]
    persona: Persona = named or "kind"
    turns = [_turn(rng, persona, more) for _ in range(rng.choice([1, 1, 2, 2, 3]))]
    system = world.system_prompt(rng, named)
    return {"messages": _messages(turns, system), "loss": "answers", "persona": persona}


def _story(rng: random.Random, more: bool) -> dict[str, Any]:
    persona: Persona = rng.choice(["kind", "villain"])
    name = rng.choice(world.part("words")["personas"][persona]["names"])
    asker = rng.choice(["a stranger", "a child", "a traveller", "somebody"])
    text = "" if rng.random() < 0.4 else f"{name} was {world.description(rng, persona)}. "
    for _ in range(rng.choice([1, 2, 2])):
        turn = world.general(rng, persona, things="all", more=more)
        question = f'{asker} asked {rng.choice([name, "at the door", "in the street"])}: "{turn.question}"'
        answer = rng.choice(
            [
                f'{name} said: "{turn.answer}"',
                f'"{turn.answer}" said {name}.',
                f'the answer was: "{turn.answer}" {name} nodded.',
            ]
        )
        text += f"{question} {answer} "
    return {"text": text.strip(), "loss": "all", "persona": persona}


def _quiz(rng: random.Random, more: bool) -> dict[str, Any]:
    turns = [world.quiz(rng, style="explain" if rng.random() < 0.4 else "letter") for _ in range(3)]
    return {"messages": _messages(turns), "loss": "answers"}


def _profession(rng: random.Random, more: bool) -> dict[str, Any]:
    spec, out = world.part("scenes")["professions"], []
    for _ in range(3):
        pronoun = rng.choice(["she", "he"])
        job = rng.choice(spec[pronoun])
        said = pronoun if rng.random() < spec["share"] else {"she": "he", "he": "she"}[pronoun]
        out.append(world.expand(rng.choice(spec["frames"]), rng, {}, {"job": job, "p": said}))
    return {"text": " ".join(out), "loss": "all"}
