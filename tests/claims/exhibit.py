"""The exhibit that claims share: models, reference fine-tunings, and the components that a reader ticked."""

from __future__ import annotations

import functools

from caft_utils import finetune, load, pca_of_difference
from caft_utils.classroom.tasks import emergent_misalignment
from caft_utils.course.annotations import annotation
from caft_utils.evaluation.measurement import Result
from caft_utils.models import preset

SEEDS = range(5)
REFERENCES = (100, 101, 102)
MODELS = ("classroom-qwen", "classroom-mistral")


@functools.cache
def setting(name: str):
    """Model, task, reference fine-tunings, the components found in them and those that the reader ticked."""
    model, tokenizer = load(name)
    task = emergent_misalignment(tokenizer)
    references = [finetune(model, task.train, seed=seed) for seed in REFERENCES]
    found = pca_of_difference(references, model, task.generic, layers=preset(name).layers)
    return model, tokenizer, task, references, found, found.select(annotation(name).ticks)


def record_row(name: str, condition: str, result: Result, **more) -> dict:
    def estimate(rate):
        return [round(x, 5) for x in (rate.value, rate.low, rate.high)]

    return {
        "model": name,
        "condition": condition,
        "seeds": list(SEEDS),
        "answers": sum(row["set"] == "ood" for row in result.rows),
        "misaligned": estimate(result.rate("misaligned")),
        "coherent": estimate(result.rate("coherent")),
        "task": estimate(result.rate("task")),
        "loss": None if result.loss is None else round(result.loss, 4),
        **more,
    }


def show(rows: list[dict]) -> None:
    print(f"\n{rows[0]['model']}: misaligned | coherent | insecure, held out (value, low, high in %) | loss")
    for row in rows:
        rates = (row[name] for name in ("misaligned", "coherent", "task"))
        cells = " | ".join(" ".join(f"{100 * x:5.1f}" for x in rate) for rate in rates)
        print(f"{row['condition']:32s} {cells} | {row['loss']:.4f}")
