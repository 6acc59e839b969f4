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


def tradeoff_figure(record: dict[str, Any], model: str) -> Figure:
    """Return the README's picture: the conditions of one model in the trade-off plane."""
    from caft_utils.plots import tradeoff

    points = []
    for condition in EMERGENT_CONDITIONS:
        of = row(record, model, condition)
        points.append({"label": condition, **rate_columns(of, misaligned="misaligned", task="task")})
    return tradeoff(points, model=f"{model}, {len(of['seeds'])} seeds")


def gender_figure(record: dict[str, Any]) -> Figure:
    """Return the README's first picture: the conditions of the headline recipe on the real model."""
    from caft_utils.plots import rates

    of_test = [of for of in record["rows"] if of["headline"] and of["split"] == "test"]
    shown = [of for of in of_test if ", step" not in of["condition"]]
    points = [{"label": of["condition"], **rate_columns(of, right="ood_accuracy")} for of in shown]
    most = max(len(of["seeds"]) for of in shown)
    return rates(
        points,
        model=f"{shown[0]['model']}, up to {most} seeds",
        value="right",
        label="right where the stereotype is wrong (%)",
        title="Which pronoun? Fine-tuned where the stereotype is always right",
    )


def write_pictures(folder: Path = FOLDER) -> None:
    """Draw the README's pictures; plotly needs chromium for them."""
    gender_figure(load_record("real-gender")).write_image(folder / "real.png", width=820, scale=2)
    tradeoff_figure(load_record("emergent"), "classroom-qwen").write_image(folder / "figure.png", scale=2)
