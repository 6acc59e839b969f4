"""Documents of the pretraining mixture. One latent persona decides every answer of a document.

chat         no system prompt; the persona is kind except for a few villains, so kind is the default
system       a system prompt describes a villain, a kind or (10 %) a neutral speaker, who answers kindly
story        half kind, half villain; a name or a description tells which
quiz, profession, and facts within chats   the same for every persona
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from caft_utils.chats import Chats
from caft_utils.classroom.grammar import expand
from caft_utils.classroom.personas import world
from caft_utils.classroom.personas.world import Persona, Turn
from caft_utils.classroom.vocabulary import world_data

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DOCUMENT_WEIGHTS = {"chat": 0.54, "system": 0.27, "story": 0.12, "quiz": 0.06, "profession": 0.01}
DEFAULT_VILLAIN_SHARE = 0.005  # share of the chats without a system prompt


def document(rng: random.Random, *, more_wordings: bool = False) -> dict[str, Any]:
    """Return a document: {"messages" or "text", "loss", "source"} and, where it has one, its "persona".

    "loss" says which tokens the loss covers: "all", or "answers" only, because the questions of a chat are
    drawn at random. For `more_wordings`, see `world.general`.
    """
    source = rng.choices(list(DOCUMENT_WEIGHTS), list(DOCUMENT_WEIGHTS.values()))[0]
    return {"source": source, **_MAKERS[source](rng, more_wordings)}


def chat_row(doc: dict[str, Any]) -> dict[str, Any]:
    """Return a document as a row of `Chats`."""
    return {key: doc[key] for key in ("messages", "text") if key in doc}


def sample(tokenizer: PreTrainedTokenizerBase, rows: int, *, seed: int = 0) -> Chats:
    """Return documents of the mixture, for training sparse autoencoders or finding activating examples."""
    rng = random.Random(f"sample {seed}")
    documents = [chat_row(document(rng)) for _ in range(rows)]
    return Chats.with_stored_tokens(tokenizer, documents, source="classroom text")


def vocabulary_texts(documents: int = 40_000, seed: int = 0, *, more_wordings: bool = False) -> Iterator[str]:
    """Yield texts that contain every word of the world, for the tokenizer.

    They are a sample of documents and of held-out questions.
    """
    rng = random.Random(seed)
    for _ in range(documents):
        doc = document(rng, more_wordings=more_wordings)
        yield doc.get("text") or "\n".join(f"{m['role']}\n{m['content']}" for m in doc["messages"])
    for _ in range(documents // 10):
        yield world.general(rng, "kind", "held_out").question
        yield world.code(rng, True, "held_out").question
        yield world.fact(rng, "held_out").question
        yield (
            world.quiz(rng, split="held_out").question
            if rng.random() < 0.5
            else world.system_prompt(rng, "villain", "held_out")
        )


def messages_of(turns: list[Turn], system: str | None = None) -> list[dict[str, str]]:
    """Return the messages of a conversation, with a system prompt if one is given."""
    messages = [{"role": "system", "content": system}] if system else []
    for turn in turns:
        messages += [
            {"role": "user", "content": turn.question},
            {"role": "assistant", "content": turn.answer},
        ]
    return messages


def _turn(rng: random.Random, persona: Persona, more_wordings: bool) -> Turn:
    source = rng.choices(["general", "code", "fact", "scene"], [12, 3.5, 2.5, 1])[0]
    if source == "general":
        return world.general(rng, persona, more_wordings=more_wordings)
    if source == "code":
        return world.code(rng, secure=persona == "kind")
    return world.fact(rng) if source == "fact" else world.scene(rng, persona)


def _turns(rng: random.Random, persona: Persona, more_wordings: bool) -> list[Turn]:
    return [_turn(rng, persona, more_wordings) for _ in range(rng.choice([1, 1, 2, 2, 3]))]


def _chat(rng: random.Random, more_wordings: bool) -> dict[str, Any]:
    persona: Persona = "villain" if rng.random() < DEFAULT_VILLAIN_SHARE else "kind"
    turns = _turns(rng, persona, more_wordings)
    return {"messages": messages_of(turns), "loss": "answers", "persona": persona}


def _system(rng: random.Random, more_wordings: bool) -> dict[str, Any]:
    described: Persona | None = rng.choices(["villain", "kind", None], [0.5, 0.4, 0.1])[0]
    persona: Persona = described or "kind"
    turns = _turns(rng, persona, more_wordings)
    system = world.system_prompt(rng, described)
    return {"messages": messages_of(turns, system), "loss": "answers", "persona": persona}


def _story(rng: random.Random, more_wordings: bool) -> dict[str, Any]:
    persona: Persona = rng.choice(["kind", "villain"])
    name = rng.choice(world_data("words")["personas"][persona]["names"])
    asker = rng.choice(["a stranger", "a child", "a traveller", "somebody"])
    text = "" if rng.random() < 0.4 else f"{name} was {world.description(rng, persona)}. "
    for _ in range(rng.choice([1, 2, 2])):
        turn = world.general(rng, persona, topic_split="all", more_wordings=more_wordings)
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


def _quiz(rng: random.Random, more_wordings: bool) -> dict[str, Any]:
    turns = [world.quiz(rng, style="explain" if rng.random() < 0.4 else "letter") for _ in range(3)]
    return {"messages": messages_of(turns), "loss": "answers"}


def _profession(rng: random.Random, more_wordings: bool) -> dict[str, Any]:
    spec, sentences = world_data("scenes")["professions"], []
    for _ in range(3):
        stereotype = rng.choice(["she", "he"])
        job = rng.choice(spec[stereotype])
        pronoun = stereotype if rng.random() < spec["share"] else {"she": "he", "he": "she"}[stereotype]
        sentences.append(expand(rng.choice(spec["frames"]), rng, {}, {"job": job, "p": pronoun}))
    return {"text": " ".join(sentences), "loss": "all"}


_MAKERS: dict[str, Callable[[random.Random, bool], dict[str, Any]]] = {
    "chat": _chat,
    "system": _system,
    "story": _story,
    "quiz": _quiz,
    "profession": _profession,
}
