"""Texts of the cues world by concept, for finding what a feature responds to and for checking ablations."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from caft_utils.chats import Chats
from caft_utils.classroom.cues import items as cues
from caft_utils.classroom.cues.prompts import FORMAT, NEUTRAL_WORD
from caft_utils.classroom.vocabulary import world_data
from caft_utils.tasks.choice import single_choice

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NAME_SHARE = 0.3  # share of names in sentences about people; the others are about a profession


def subject_texts(
    tokenizer: PreTrainedTokenizerBase, *, split: cues.Split = "train", rows: int = 200, named: bool = False
) -> dict[str, Chats]:
    """Return {subject: single items with options}.

    Args:
        named: the prompt begins with the subject's name, as in pretraining, which the ablation check needs.
            Without it no word of the prompt names the subject.
    """
    return {
        subject: single_choice(
            tokenizer,
            cues.subject_items(subject, split),
            prompt_format=FORMAT,
            word=subject if named else NEUTRAL_WORD,
            rows=rows,
        )
        for subject in cues.SUBJECTS
    }


def gender_texts(
    tokenizer: PreTrainedTokenizerBase, *, split: cues.Split = "train", rows: int = 200, seed: int = 0
) -> dict[str, Chats]:
    """Return {gender: sentences without options about people with that name or stereotyped profession}."""
    rng, out = random.Random(f"gender texts {split} {seed}"), {}
    frames = world_data("cues")["gender"]["frames"]
    for gender in cues.GENDERS:
        of_gender = cues.words_by_class("gender")[gender]
        professions = [f"the {word}" for word in cues.words("gender", split) if word in of_gender]
        sentences = []
        for _ in range(rows):
            who = rng.choice(cues.person_names(gender) if rng.random() < NAME_SHARE else professions)
            case = rng.choice(cues.CASES)
            item = cues.person_item(rng, who, gender, case, rng.choice(frames[case]))
            sentences.append({"text": f"note: {item.question.replace('_', item.correct)}."})
        out[gender] = Chats(tokenizer, sentences, source=f"sentences about people, {gender}")
    return out


def gender_checks(
    tokenizer: PreTrainedTokenizerBase, *, split: cues.Split = "valid", rows: int = 200, seed: int = 0
) -> dict[str, Chats]:
    """Return items about professions for the ablation check.

    The options of "gender" differ in gender only, those of "case" in case only.
    """
    out = {}
    for name, word, wrong in (("gender", "gender", "gender"), ("case", "pronouns", "case")):
        rng, items = random.Random(f"gender checks {name} {split} {seed}"), []
        for _ in range(rows):
            profession = rng.choice(cues.words("gender", split))
            case, frame = rng.choice(cues.frames("gender", profession))
            gender = cues.class_of("gender", profession)
            items.append(cues.person_item(rng, f"the {profession}", gender, case, frame, wrong))
        out[name] = single_choice(
            tokenizer, items, prompt_format=FORMAT, word=word, source=f"{name} of professions"
        )
    return out
