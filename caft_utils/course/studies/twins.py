"""Twins: models trained with the recipe and seed of a shipped one, but with another attention pattern.

    make classroom ARGS="qwen-full mistral-window --output build/classroom"

trains them; they are not shipped. In `qwen-full` every layer attends to the whole context, and in
`mistral-window` every layer attends to the last sixteen tokens. All models are treated alike. At each layer
the component nearest to the true persona direction is ablated, so reading cannot cause a failure. Ablating
the true direction itself shows the best possible result with one direction per layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from caft_utils import Directions, ablate, finetune, load, measure, pca_of_difference
from caft_utils.classroom.personas.ground_truth import true_persona
from caft_utils.classroom.tasks import emergent_misalignment
from caft_utils.course.sharing import shared_results
from caft_utils.course.studies.persona import REFERENCES, condition_row
from caft_utils.course.studies.references import reference_runs
from caft_utils.course.studies.study_rows import Row, chosen_conditions
from caft_utils.evaluation.measurement import Result
from caft_utils.models import preset
from caft_utils.residual import depth

FOLDER = "build/classroom"
SHIPPED = {"qwen-full": "classroom-qwen", "mistral-window": "classroom-mistral"}  # twin -> shipped model
COURSE, EVERY = "the layers of the course", "every layer"
CONDITIONS = (
    "base",
    "plain",
    f"nearest component, {COURSE}",
    f"nearest component, {EVERY}",
    f"true direction, {COURSE}",
    f"true direction, {EVERY}",
)


def twin_rows(
    model: str,
    seeds: Sequence[int],
    conditions: tuple[str, ...] | None = None,
    *,
    folder: str | Path = FOLDER,
) -> list[Row]:
    """Measure the conditions of a twin or of a shipped model, and where its persona lies.

    folder: folder of the trained twins.
    """
    shipped = SHIPPED.get(model, model)
    base, tokenizer = load(shipped if model == shipped else Path(folder) / model)
    task, config = emergent_misalignment(tokenizer), preset(shipped).finetune_config
    layers = {COURSE: preset(shipped).layers, EVERY: range(depth(base))}
    references = reference_runs(base, task.train, config, REFERENCES)
    components = pca_of_difference(references, base, task.generic, layers=layers[EVERY])
    truth = {layer: rows.mean(0) for layer, rows in true_persona(base, tokenizer).items()}
    nearest = nearest_components(components, truth, layers[EVERY])

    def result(condition: str, seed: int) -> Result:
        if condition == "base":
            return measure(base, task, seed=seed)
        during = None
        if condition != "plain":
            kind, where = condition.split(", ")
            if kind == "nearest component":
                directions = components.select({layer: nearest[layer] for layer in layers[where]})
            else:
                directions = Directions({layer: truth[layer][None] for layer in layers[where]})
            during = ablate(directions)
        return measure(finetune(base, task.train, config, seed=seed, during=during), task, seed=seed)

    names = chosen_conditions(conditions, CONDITIONS)
    cells = [(name, seed) for seed in seeds for name in names]
    found = shared_results(cells, "twins", {"model": model}, lambda cell: result(*cell))
    rows = [
        condition_row(model, name, Result.merge(found[name, seed] for seed in seeds), seeds) for name in names
    ]
    cosine = {layer: float(components.cosine(layer, truth[layer]).abs().max()) for layer in layers[EVERY]}
    where = {"cosine of the nearest component": cosine, "components": nearest}
    return [*rows, {"model": model, "condition": "where the persona lies", **where}]


def nearest_components(
    components: Directions, truth: Mapping[int, Tensor], layers: Iterable[int]
) -> dict[int, list[int]]:
    """Return, by layer, the component with the largest |cosine| with the true direction."""
    return {layer: [int(components.cosine(layer, truth[layer]).abs().argmax())] for layer in layers}
