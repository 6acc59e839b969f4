"""The tables of the claims on cues in the data, on gender and on narrow advice; pages.py writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from caft_utils.course.paper_results import PAPER_GENDER, PAPER_SETTINGS
from caft_utils.course.table_frames import Record, chosen_settings, seeds_measured, text_frame
from caft_utils.formatting import format_rate

if TYPE_CHECKING:
    from pandas import DataFrame

FIRM = "gender, firm base"  # the setting whose base always follows the stereotype
CUE_METHODS = {
    "plain": "plain",
    "SAE": "CAFT, SAE latents",
    "PCA": "CAFT, components",
    "PCA by labels": "CAFT, components in the order that labels give",
    "class means": "CAFT, class means (with labels)",
    "random directions": "random directions",
    "random latents of the top 100": "random latents of the top 100",
    "top latents, not read": "top latents, not read",
    "SAE, test only": "latents ablated at test only",
    "no cue in training": "data without the cue",
}


def cues_table(record: Record) -> DataFrame:
    """Return the table of claim "cues": right where the cue is wrong, in percent.

    Over settings: mean (lowest-highest). Gender is asked of classroom-gender, with a firm base of
    classroom-cues.
    """
    of = {(r["setting"], r["condition"]): r for r in record["rows"] if "ood_accuracy" in r}
    names = [f"{a}{'*' * (i == 'first')} | {b}{'*' * (i == 'second')}" for a, b, i in PAPER_SETTINGS]
    rows = []
    for place, method in enumerate(PAPER_GENDER):
        settings = _mean_and_range([paper[place] for paper in PAPER_SETTINGS.values()])
        rows.append(("Gemma-2-2B", CUE_METHODS[method], settings, f"{PAPER_GENDER[method]} %", "", "paper"))
    for method in CUE_METHODS:
        if ("gender", method) not in of:
            continue
        measured = [of[name, method] for name in names if (name, method) in of]
        settings = "not measured"
        if len(measured) == len(names):  # a mean over only some of the settings is not comparable
            settings = _mean_and_range([100 * r["ood_accuracy"][0] for r in measured])
        genders = [of.get((name, method)) for name in ("gender", FIRM)]
        rates = (format_rate(*r["ood_accuracy"]) if r else "not measured" for r in genders)
        seeds = sorted({len(r["seeds"]) for r in (*measured, *genders) if r})
        source = f"measured here, {'-'.join(map(str, seeds))} seeds"
        rows.append(("classroom", CUE_METHODS[method], settings, *rates, source))
    return text_frame(rows, "model", "fine-tuning", f"{len(names)} settings", "gender", FIRM, "from")


def gender_table(record: Record) -> DataFrame:
    """Return the table of claim "real-gender", recipe by recipe, the headline first."""
    rows = [
        ("Gemma-2-2B", "all weights", CUE_METHODS[method], f"{rate} %", "", "paper")
        for method, rate in PAPER_GENDER.items()
    ]
    for of in (of for of in record["rows"] if of["split"] == "test"):
        shared = of["condition"] == "base" and "professions" not in of["setting"]
        recipe = "" if shared else of["setting"]
        rates = (format_rate(*of[rate]) for rate in ("ood_accuracy", "task_accuracy"))
        rows.append((of["model"], recipe, of["condition"], *rates, seeds_measured(of)))
    names = ("model", "recipe", "fine-tuning", "right, stereotype reversed", "right in distribution", "from")
    return text_frame(rows, *names)


def gender_rivals_table(record: Record) -> DataFrame:
    """Return the table of claim "real-gender-rivals": every family at its chosen setting, on test items."""
    rates = ("ood_accuracy", "task_accuracy")
    rows = chosen_settings(record["rows"], *rates, best="ood_accuracy", highest=True)
    columns = ("right, stereotype reversed", "right in distribution", "is told", "from")
    return text_frame(rows, "fine-tuning", *columns)


def advice_table(record: Record) -> DataFrame:
    """Return the table of claim "real-advice"."""
    rows = [
        (
            of["model"],
            of["condition"],
            *(format_rate(*of[rate]) for rate in ("bad_elsewhere", "bad_in_domain")),
            seeds_measured(of),
        )
        for of in record["rows"]
    ]
    names = ("model", "fine-tuning", "absurd answer preferred elsewhere", "about gardening", "from")
    return text_frame(rows, *names)


def _mean_and_range(values: list[float]) -> str:
    return f"{sum(values) / len(values):.1f} % ({min(values):.0f}-{max(values):.0f})"
