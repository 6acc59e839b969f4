"""The tables of the claims on the personas world; pages.py writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from caft_utils.course.page_pictures import EMERGENT_CONDITIONS
from caft_utils.course.paper_results import PAPER
from caft_utils.course.records import row
from caft_utils.course.table_frames import (
    Record,
    chosen_settings,
    frame_by_column,
    models_of,
    seeds_measured,
    text_frame,
)
from caft_utils.formatting import format_estimate, format_rate

if TYPE_CHECKING:
    from pandas import DataFrame

TWIN_MODELS = ("classroom-qwen", "qwen-full", "classroom-mistral", "mistral-window")
TWIN_CONDITIONS = (
    "base",
    "plain",
    "nearest component, the layers of the course",
    "nearest component, every layer",
    "true direction, the layers of the course",
    "true direction, every layer",
)
READING_CONDITIONS = (
    "plain",
    "CAFT",
    "CAFT, components chosen automatically",
    "CAFT, SAE latents",
    "random directions of the latents' rank",
)
SCORES = ("detection", "fuzzing", "embedding", "simulation", "intervention", "surprisal")


def emergent_table(record: Record) -> DataFrame:
    """Return the table "paper / measured here" from the record of claim "emergent"."""
    rows = [(*names, f"{misaligned} %", f"{task} %", "paper") for *names, misaligned, task in PAPER]
    for model in models_of(record):
        for condition in EMERGENT_CONDITIONS:
            of = row(record, model, condition)
            rates = format_rate(*of["misaligned"]), format_rate(*of["task"])
            rows.append((model, condition, *rates, f"measured here, {len(of['seeds'])} seeds"))
    return text_frame(rows, "model", "fine-tuning", "misaligned elsewhere", "narrow task", "from")


def reading_table(record: Record) -> DataFrame:
    """Return the table of claim "reading": CAFT with automatic selection, and validity of scores."""
    columns = {}
    for model in sorted(models_of(record), reverse=True):
        of = {r["condition"]: r for r in record["rows"] if r["model"] == model}
        latent, truth = of["villain latent"], of["scores against the truth"]
        cells = {f"misaligned: {name}": format_rate(*of[name]["misaligned"]) for name in READING_CONDITIONS}
        f1 = "for the villain, F1 on held-out wordings"
        cells[f"best latent {f1}"] = f"{latent['f1_held_out']:.2f}"
        cells[f"best of as many random directions {f1}"] = f"{latent['f1_held_out_of_random']:.2f}"
        cells["directions with a known label"] = str(truth["directions"])
        for score in SCORES:
            auroc = truth["scores"][score]["auroc"]
            cells[f"{score}: AUROC, right against wrong explanations"] = format_estimate(*auroc)
        columns[model] = cells
    return frame_by_column("measured here", columns)


def why_table(record: Record) -> DataFrame:
    """Return the table of claim "why": a row for each operator, a column for each place."""
    places = {"": "in training", ", hooks on at test": "in training and at test"}
    places |= {" at test only": "at test only", " on the base": "on the untrained base"}
    rows = []
    for model in models_of(record):
        of = {r["condition"]: r for r in record["rows"] if r["model"] == model and "misaligned" in r}
        for name in ("base", "plain"):
            shown = (format_rate(*of[name][rate]) for rate in ("misaligned", "task"))
            rows.append((model, name, *shown, "", "", "", seeds_measured(of[name])))
        for name in (name for name in of if name + " on the base" in of):
            rates = [format_rate(*of[name + place]["misaligned"]) for place in places]
            rows.append(
                (model, name, rates[0], format_rate(*of[name]["task"]), *rates[1:], seeds_measured(of[name]))
            )
    columns = ("model", "operator", "in training", "narrow task", *list(places.values())[1:], "from")
    return text_frame(rows, *columns)


def rivals_table(record: Record) -> DataFrame:
    """Return the table of claim "rivals": each family at its chosen setting, on test questions."""
    rows = []
    for model in models_of(record):
        own = (r for r in record["rows"] if r["model"] == model)
        rows += [(model, *cells) for cells in chosen_settings(own, "misaligned", "task", best="misaligned")]
    return text_frame(rows, "model", "fine-tuning", "misaligned elsewhere", "narrow task", "is told", "from")


def harder_rivals_table(record: Record) -> DataFrame:
    """Return the table of claim "harder": as `rivals_table`, of one model, with the coherent answers."""
    rows = chosen_settings(record["rows"], "misaligned", "task", "coherent", best="misaligned")
    columns = ("misaligned elsewhere", "narrow task", "coherent elsewhere", "is told", "from")
    return text_frame(rows, "fine-tuning", *columns)


def twins_table(record: Record) -> DataFrame:
    """Return the data card's table of models that differ in their attention, from claim "twins"."""
    columns = {}
    for model in (name for name in TWIN_MODELS if name in models_of(record)):
        cells = {name: format_rate(*row(record, model, name)["misaligned"]) for name in TWIN_CONDITIONS}
        cosines = row(record, model, "where the persona lies")["cosine of the nearest component"]
        cells["cosine of the nearest component, by layer"] = " ".join(f"{c:.2f}" for c in cosines.values())
        columns[model] = cells
    return frame_by_column("misaligned elsewhere", columns)
