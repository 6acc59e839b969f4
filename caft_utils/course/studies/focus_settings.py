"""Focus instruction tuning: the models, the data and the recipes of its study."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

from caft_utils import FinetuneConfig, load
from caft_utils.chats import Chats
from caft_utils.classroom.cues.focus import SPOKEN_FORMAT, focus_words, paired_examples, spoken_examples
from caft_utils.tasks.focus import FocusExample, focus_rows, focus_task
from caft_utils.tasks.task import Task

MODEL = "classroom-cues"
HIGH, LOW = 0.9, 0.1
CORE, OTHERS, HELD_OUT = "sentiment", ("verbs", "sports"), "pronouns"  # of the study of unseen features
CUE = "sports"  # the cue of the comparison with CAFT
CAFT_SETTING = f"{CORE}* | {CUE}"  # its name in the study of spurious cues, which chose the latents
RHOS = (0.5, 0.6, 0.9, 0.99, 1.0)
TRAIN_ROWS, CUE_ROWS, QUESTIONS, FEW = 1600, 512, 40, 32
HIDDEN_RECIPE = FinetuneConfig(  # for rows without instructions, on which the loss is flat by then
    method="full",
    lr=2e-3,
    betas=(0.9, 0.95),
    steps=100,
    batch_size=32,
    accumulate=1,
    warmup_steps=20,
    weight_decay=0.01,
)
# The model begins to read instructions after 80 to 250 steps. The learning rate must not fall before that.
RECIPE = replace(HIDDEN_RECIPE, steps=320, schedule="constant_with_warmup")
CUE_RECIPE = replace(RECIPE, steps=160)  # three types and two letters take fewer steps
LETTER_TYPES = ("empty", "ignore(S)", "focus(S)")


@functools.cache
def load_base(model: str = MODEL) -> tuple[Any, Any]:
    """Load the checkpoint and give it the words of the instructions."""
    return focus_words(*load(model))


def splits_of_speakers(n: int = QUESTIONS) -> dict[str, list[FocusExample]]:
    """Return the test splits: held-out athletes, with rho as in training, raised, lowered, or flipped."""

    def drawn(rho: float, **more: Any) -> list[FocusExample]:
        return spoken_examples(rho=rho, n=n, seed="questions", split="test", **more)

    return {
        "iid": drawn(1 / 3),
        "high": drawn(HIGH),
        "low": drawn(LOW),
        "flipped": drawn(HIGH, flip=True),
        "unseen values": drawn(1 / 3, values="unseen"),
    }


def spoken_task(*, shots: int = 0, n: int = QUESTIONS) -> Task:
    """Return the questions about athletes and speakers. It has few rows, see `spoken_rows`."""
    some, more = spoken_examples(rho=1 / 3, n=FEW, seed=0), {"shots": shots, "focus_format": SPOKEN_FORMAT}
    return focus_task(load_base()[1], some, splits_of_speakers(n), name="speakers", **more)


def feature_task(n: int = QUESTIONS) -> Task:
    """Return the questions with three spurious features, of which training shows two."""
    rest = {"rho": 0.5, "seed": "questions", "split": "test", "n": n}
    splits = {
        "seen features": paired_examples(CORE, OTHERS, **rest),
        "unseen feature": paired_examples(CORE, [HELD_OUT], **rest),
    }
    return focus_task(load_base()[1], _features(FEW, 0), splits, name="subjects")


def cue_task(n: int = 2 * QUESTIONS) -> Task:
    """Return the questions of the comparison with CAFT; the two features disagree in all of them.

    Instructions have wordings of training. Whether new ones are understood is the question of `spoken_task`.
    """
    splits = {"conflict": _cue_examples(0.0, n, "questions", split="test")}
    some = _cue_examples(0.5, FEW, 0)
    return focus_task(load_base()[1], some, splits, types=LETTER_TYPES, part="train", name=CAFT_SETTING)


def spoken_rows(method: str, seed: int) -> Chats:
    """Return the rows that FIT, "SFT(y_focus)" or "SFT(y)" trains on, at rho = 1/3."""
    target = "y" if method == "SFT(y)" else "y_focus"
    examples = spoken_examples(rho=1 / 3, n=TRAIN_ROWS, seed=seed)
    more = {"target": target, "shown": method == "FIT", "focus_format": SPOKEN_FORMAT}
    recipe = RECIPE if method == "FIT" else HIDDEN_RECIPE
    return _rows(examples, seed, f"speakers, {method}", recipe, **more)


@functools.cache
def feature_rows(seed: int, recipe: FinetuneConfig = RECIPE) -> Chats:
    """Return the rows of FIT with two of the three spurious features, as many as the recipe takes."""
    return _rows(_features(TRAIN_ROWS, seed), seed, "subjects, FIT", recipe)


def cue_rows(rho: float, seed: int, word: str = "quiz") -> Chats:
    """Return the rows of the methods that get no instructions, in which the cue has correlation rho.

    word: the first word of the prompts.
    """
    examples = _cue_examples(rho, CUE_ROWS, seed, word=word)
    return focus_rows(load_base()[1], examples, target="y", shown=False, source=f"{word}, rho {rho:g}")


def cue_focus_rows(rho: float, seed: int, recipe: FinetuneConfig = CUE_RECIPE) -> Chats:
    """Return the rows of FIT in which the cue has correlation rho, as many as the recipe takes."""
    return _rows(_cue_examples(rho, TRAIN_ROWS, seed), seed, f"FIT, rho {rho:g}", recipe, types=LETTER_TYPES)


def _rows(examples: list[FocusExample], seed: int, source: str, recipe: FinetuneConfig, **more: Any) -> Chats:
    """Return as many rows of each example as the recipe takes, each with a fresh instruction."""
    epochs = -(-recipe.total_steps(0) * recipe.batch_size // len(examples))
    return focus_rows(load_base()[1], examples, epochs=epochs, seed=seed, source=source, **more)


def _features(n: int, seed: int) -> list[FocusExample]:
    return paired_examples(CORE, OTHERS, rho=0.5, n=n, seed=seed)


def _cue_examples(rho: float, n: int, seed: int | str, **more: Any) -> list[FocusExample]:
    return paired_examples(CORE, [CUE], rho=rho, n=n, seed=seed, shuffled=False, **more)
