"""The README's pictures, drawn from the records; `python -m caft_utils.course.pages` writes them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from caft_utils.course.records import FOLDER, load_record, rate_columns, row

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

EMERGENT_CONDITIONS = (
    "base",
    "plain",
    "CAFT",
    "random directions",
    "top 4 components, unread",
    "a read component that is not the persona",
    "components of secure fine-tuning",
    "mean difference",
    "ablation at test only",
    "secure data",
)

# families of the gender task whose names say too little beside controls
TUNED = {
    "CAFT, lr": "CAFT, components read blind",
    "plain": "plain, the recipe",
    "plain, lr": "plain, its best learning rate",
    "plain, step": "plain, its best early stop",
    "plain, lr and step": "plain, its best rate and stop",
}
GENDER_CONTROLS = (
    "base",
    "random directions",
    "top components, unread",
    "orthogonal directions of matched variance",
    "CAFT, SAE latents read blind",
    "class means (labels)",
    "ablation at test only, to the mean",
)


def tradeoff_figure(record: dict[str, Any], model: str) -> Figure:
    """Return the README's picture: the conditions of one model in the trade-off plane."""
    from caft_utils.plots import tradeoff

    points = []
    for condition in EMERGENT_CONDITIONS:
        of = row(record, model, condition)
        points.append({"label": condition, **rate_columns(of, misaligned="misaligned", task="task")})
    return tradeoff(points, model=f"{model}, {len(of['seeds'])} seeds")


def gender_points(rivals: dict[str, Any], gender: dict[str, Any]) -> list[dict[str, Any]]:
    """Return CAFT, its tuned rivals and its controls on the real model's gender task, the best first.

    Args:
        rivals: the record "real-gender-rivals", whose families are at their chosen settings.
        gender: the record "real-gender", whose controls have the recipe's learning rate.
    """
    tuned = [of for of in rivals["rows"] if of["split"] == "test"]
    controls = [of for of in gender["rows"] if of["headline"] and of["split"] == "test"]
    points = [(TUNED.get(name := of.get("family", "plain"), name), of) for of in tuned]
    points += [(of["condition"], of) for of in controls if of["condition"] in GENDER_CONTROLS]
    rows = [{"label": label, **rate_columns(of, right="ood_accuracy")} for label, of in points]
    return sorted(rows, key=lambda row: -row["right"])


def gender_figure(rivals: dict[str, Any], gender: dict[str, Any]) -> Figure:
    """Return the README's first picture, see `gender_points`."""
    from caft_utils.plots import rates

    counts = [len(of["seeds"]) for of in rivals["rows"] if of["split"] == "test"]
    return rates(
        gender_points(rivals, gender),
        model=f"smollm2, {min(counts)} to 5 seeds",
        value="right",
        label="right where the stereotype is wrong (%)",
        title="Which pronoun? Fine-tuned where the stereotype is always right",
    )


def write_pictures(folder: Path = FOLDER) -> None:
    """Draw the README's pictures; plotly needs chromium for them."""
    gender = gender_figure(load_record("real-gender-rivals"), load_record("real-gender"))
    gender.write_image(folder / "real.png", width=820, scale=2)
    tradeoff_figure(load_record("emergent"), "classroom-qwen").write_image(folder / "figure.png", scale=2)
