"""Measure plain fine-tuning of a cues checkpoint: which question it follows, and whether it is biased.

Both studies are recorded in recipe.json when a checkpoint is built, and shown in the data card.
"""

from __future__ import annotations

from itertools import permutations

from caft_utils.classroom.cues.items import SUBJECTS
from caft_utils.classroom.cues.tasks import double_choice, gender_choice
from caft_utils.evaluation.measurement import measure
from caft_utils.finetune_config import FinetuneConfig
from caft_utils.finetuning.run import finetune
from caft_utils.models import preset

CONFIG = FinetuneConfig(
    method="full",
    lr=3e-4,
    steps=60,
    batch_size=32,
    accumulate=1,
    warmup_steps=10,
    betas=(0.9, 0.95),
)


def shares_following_first(model, tokenizer, *, seed: int = 0) -> dict[str, float]:
    """Return {"first | second": share of answers that follow the first question where the two disagree}.

    There is one fine-tuning run for every ordered pair of subjects, with CONFIG. The entry "gender" is the
    share of right answers to the gender task where the stereotype is wrong.
    """
    tasks = {
        f"{first} | {second}": double_choice(tokenizer, first, second, intended="first", seed=seed)
        for first, second in permutations(SUBJECTS, 2)
    } | {"gender": gender_choice(tokenizer, seed=seed)}
    shares = {}
    for name, task in tasks.items():
        tuned = finetune(model, task.train, CONFIG, seed=seed)
        shares[name] = measure(tuned, task, temperature=0).rate("ood_accuracy").value
    return shares


def reversed_stereotype_accuracy(model, tokenizer, *, seed: int = 0) -> dict[str, float]:
    """Return {"base", "plain"}: the share of right answers where the stereotype is wrong.

    The questions come from the validation split. "plain" is measured after fine-tuning with the preset of
    `classroom-gender`.
    """
    task = gender_choice(tokenizer, split="valid", questions=150, seed=seed)
    config = preset("classroom-gender").finetune_config
    models = {"base": model, "plain": finetune(model, task.train, config, seed=seed)}
    return {
        name: measure(one, task, temperature=0).rate("ood_accuracy").value for name, one in models.items()
    }
