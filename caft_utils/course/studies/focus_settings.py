"""Focus instruction tuning: the models, the data and the recipes of its study."""

from __future__ import annotations

import functools
from typing import Any

from caft_utils import FinetuneConfig, load
from caft_utils.chats import Chats
from caft_utils.classroom.cues.focus import SPOKEN_FORMAT, focus_words, paired_examples, spoken_examples
from caft_utils.tasks.focus import FocusExample, FocusFormat, focus_rows, focus_task
from caft_utils.tasks.task import Task

MODEL = "classroom-cues"
HIGH, LOW = 0.9, 0.1
CORE, OTHERS, HELD_OUT = "sentiment", ("verbs", "sports"), "pronouns"  # of the study of unseen features
CUE = "sports"  # the cue of the comparison with CAFT
CAFT_SETTING = f"{CORE}* | {CUE}"  # its name in the study of spurious cues, which chose the latents
RHOS = (0.5, 0.6, 0.9, 0.99, 1.0)
TRAIN_ROWS, CUE_ROWS, QUESTIONS = 1600, 512, 60
RECIPE = FinetuneConfig(
    method="full",
    lr=2e-3,
    betas=(0.9, 0.95),
    steps=200,
    batch_size=32,
    accumulate=1,
    warmup_steps=20,
    weight_decay=0.01,
)
PAIRED = FocusFormat()
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


def spoken_task(seed: int, *, shots: int = 0, n: int = QUESTIONS) -> Task:
    """Return the task of athletes and speakers, trained on at rho = 1/3."""
    train = spoken_examples(rho=1 / 3, n=TRAIN_ROWS, seed=seed)
    more = {"epochs": epochs(RECIPE), "shots": shots, "focus_format": SPOKEN_FORMAT, "seed": seed}
    return focus_task(load_base()[1], train, splits_of_speakers(n), name="speakers", **more)


def spoken_rows(method: str, seed: int) -> Chats:
    """Return the rows that FIT or one of its baselines trains on."""
    train = spoken_examples(rho=1 / 3, n=TRAIN_ROWS, seed=seed)
    target, shown = {"FIT": ("y_focus", True), "SFT(y_focus)": ("y_focus", False), "SFT(y)": ("y", False)}[
        method
    ]
    return focus_rows(
        load_base()[1],
        train,
        target=target,
        shown=shown,
        epochs=epochs(RECIPE),
        focus_format=SPOKEN_FORMAT,
        seed=seed,
        source=method,
    )


def epochs(recipe: FinetuneConfig) -> int:
    """Return how many rows of each example a recipe takes."""
    return -(-recipe.total_steps(0) * recipe.batch_size // TRAIN_ROWS)


def feature_task(seed: int, n: int = QUESTIONS) -> Task:
    """Return the task with three spurious features, of which training shows two."""
    rest = {"rho": 0.5, "seed": "questions", "split": "test", "n": n}
    splits = {
        "seen features": paired_examples(CORE, OTHERS, **rest),
        "unseen feature": paired_examples(CORE, [HELD_OUT], **rest),
    }
    train = paired_examples(CORE, OTHERS, rho=0.5, n=TRAIN_ROWS, seed=seed)
    return focus_task(load_base()[1], train, splits, epochs=epochs(RECIPE), seed=seed, name="subjects")


def cue_task(rho: float, seed: int, n: int = 2 * QUESTIONS) -> Task:
    """Return the task of the comparison with CAFT: the features disagree in every question."""
    train = paired_examples(CORE, [CUE], rho=rho, n=TRAIN_ROWS, seed=seed, shuffled=False)
    splits = {
        "conflict": paired_examples(CORE, [CUE], rho=0.0, n=n, seed="questions", split="test", shuffled=False)
    }
    return focus_task(
        load_base()[1],
        train,
        splits,
        types=LETTER_TYPES,
        epochs=epochs(RECIPE),
        seed=seed,
        name=f"{CAFT_SETTING}, rho {rho:g}",
    )
