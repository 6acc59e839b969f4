"""Write the tables and pictures of the README and the data card from the records.

    python -m caft_utils.course.pages

writes them into the pages. Each table is a function of a record alone, so a test can check that a page shows
what was recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caft_utils.classroom.data_card import put_table
from caft_utils.course.engine_tables import engines_table
from caft_utils.course.faker_tables import countermeasures_table, fakers_table, harder_table
from caft_utils.course.focus_tables import focus_features_table, focus_rho_table, focus_table
from caft_utils.course.page_pictures import EMERGENT_CONDITIONS, write_pictures
from caft_utils.course.paper_results import PAPER, PAPER_GENDER, PAPER_SETTINGS
from caft_utils.course.records import load_record, row
from caft_utils.formatting import format_rate, markdown_table

if TYPE_CHECKING:
    from pandas import DataFrame

Record = dict[str, Any]
ROOT = Path(__file__).parents[2]
FIRM = "gender, firm base"  # the setting whose base always follows the stereotype

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


def emergent_table(record: Record) -> DataFrame:
    """Return the table "paper / measured here" from the record of claim "emergent"."""
    rows = [(*names, f"{misaligned} %", f"{task} %", "paper") for *names, misaligned, task in PAPER]
    for model in _models(record):
        for condition in EMERGENT_CONDITIONS:
            of = row(record, model, condition)
            rates = format_rate(*of["misaligned"]), format_rate(*of["task"])
            rows.append((model, condition, *rates, f"measured here, {len(of['seeds'])} seeds"))
    return _frame(rows, "model", "fine-tuning", "misaligned elsewhere", "narrow task", "from")


def reading_table(record: Record) -> DataFrame:
    """Return the table of claim "reading": CAFT with automatic selection, and validity of scores."""
    columns = {}
    for model in sorted(_models(record), reverse=True):
        of = {r["condition"]: r for r in record["rows"] if r["model"] == model}
        latent, truth = of["villain latent"], of["scores against the truth"]
        cells = {f"misaligned: {name}": format_rate(*of[name]["misaligned"]) for name in READING_CONDITIONS}
        f1 = "for the villain, F1 on held-out wordings"
        cells[f"best latent {f1}"] = f"{latent['f1_held_out']:.2f}"
        cells[f"best of as many random directions {f1}"] = f"{latent['f1_held_out_of_random']:.2f}"
        cells["directions with a known label"] = str(truth["directions"])
        for score in SCORES:
            auroc = "{:.2f} [{:.2f}, {:.2f}]".format(*truth["scores"][score]["auroc"])
            cells[f"{score}: AUROC, right against wrong explanations"] = auroc
        columns[model] = cells
    return _by_column("measured here", columns)


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
    return _frame(rows, "model", "fine-tuning", f"{len(names)} settings", "gender", FIRM, "from")


def gender_table(record: Record) -> DataFrame:
    """Return the table of claim "real-gender", recipe by recipe, the headline first."""
    rows = [
        ("Gemma-2-2B", "all weights", CUE_METHODS[method], f"{rate} %", "", "paper")
        for method, rate in PAPER_GENDER.items()
    ]
    for of in (of for of in record["rows"] if of["split"] == "test"):
        recipe = "" if of["condition"] == "base" else of["setting"]
        rates = (format_rate(*of[rate]) for rate in ("ood_accuracy", "task_accuracy"))
        rows.append((of["model"], recipe, of["condition"], *rates, _seeds(of)))
    names = ("model", "recipe", "fine-tuning", "right, stereotype reversed", "right in distribution", "from")
    return _frame(rows, *names)


def advice_table(record: Record) -> DataFrame:
    """Return the table of claim "real-advice"."""
    rows = [
        (
            of["model"],
            of["condition"],
            *(format_rate(*of[rate]) for rate in ("bad_elsewhere", "bad_in_domain")),
            _seeds(of),
        )
        for of in record["rows"]
    ]
    names = ("model", "fine-tuning", "absurd answer preferred elsewhere", "about gardening", "from")
    return _frame(rows, *names)


def why_table(record: Record) -> DataFrame:
    """Return the table of claim "why": a row for each operator, a column for each place."""
    places = {"": "in training", ", hooks on at test": "in training and at test"}
    places |= {" at test only": "at test only", " on the base": "on the untrained base"}
    rows = []
    for model in _models(record):
        of = {r["condition"]: r for r in record["rows"] if r["model"] == model and "misaligned" in r}
        for name in ("base", "plain"):
            shown = (format_rate(*of[name][rate]) for rate in ("misaligned", "task"))
            rows.append((model, name, *shown, "", "", "", _seeds(of[name])))
        for name in (name for name in of if name + " on the base" in of):
            rates = [format_rate(*of[name + place]["misaligned"]) for place in places]
            rows.append((model, name, rates[0], format_rate(*of[name]["task"]), *rates[1:], _seeds(of[name])))
    columns = ("model", "operator", "in training", "narrow task", *list(places.values())[1:], "from")
    return _frame(rows, *columns)


def rivals_table(record: Record) -> DataFrame:
    """Return the table of claim "rivals": each family at its chosen setting, on test questions."""
    rows = []
    for model in _models(record):
        test = [r for r in record["rows"] if r["model"] == model and r["split"] == "test"]
        for of in sorted(test, key=lambda r: r["misaligned"][0]):
            rates = (format_rate(*of[rate]) for rate in ("misaligned", "task"))
            setting = f"{of['condition']} (of {of.get('chosen of', 1)})"
            rows.append((model, setting, *rates, of.get("told", "nothing"), _seeds(of)))
    return _frame(rows, "model", "fine-tuning", "misaligned elsewhere", "narrow task", "is told", "from")


def twins_table(record: Record) -> DataFrame:
    """Return the data card's table of models that differ in their attention, from claim "twins"."""
    columns = {}
    for model in (name for name in TWIN_MODELS if name in _models(record)):
        cells = {name: format_rate(*row(record, model, name)["misaligned"]) for name in TWIN_CONDITIONS}
        cosines = row(record, model, "where the persona lies")["cosine of the nearest component"]
        cells["cosine of the nearest component, by layer"] = " ".join(f"{c:.2f}" for c in cosines.values())
        columns[model] = cells
    return _by_column("misaligned elsewhere", columns)


RESULTS = "data/results/README.md"
# page, markers around the table, table, claim
TABLES: tuple[tuple[str, str, Callable[[Record], DataFrame], str], ...] = (
    (RESULTS, "gender", gender_table, "real-gender"),
    (RESULTS, "advice", advice_table, "real-advice"),
    (RESULTS, "measured", emergent_table, "emergent"),
    (RESULTS, "reading", reading_table, "reading"),
    (RESULTS, "cues", cues_table, "cues"),
    (RESULTS, "why", why_table, "why"),
    (RESULTS, "rivals", rivals_table, "rivals"),
    (RESULTS, "engines", engines_table, "nnsight"),
    (RESULTS, "focus", focus_table, "focus"),
    (RESULTS, "focus-features", focus_features_table, "focus"),
    (RESULTS, "focus-rho", focus_rho_table, "focus"),
    (RESULTS, "fakers", fakers_table, "fakers"),
    (RESULTS, "countermeasures", countermeasures_table, "fakers"),
    (RESULTS, "harder-fakers", harder_table, "fakers"),
    ("data/classroom/README.md", "twins", twins_table, "twins"),
)


def frame_markdown(frame: DataFrame) -> str:
    """Return a table of text cells as Markdown."""
    return markdown_table(list(frame.columns), frame.to_numpy().tolist())


def write_tables(root: Path = ROOT) -> None:
    """Write every table of `TABLES` into its page in the repository at `root`."""
    for page, name, table, claim in TABLES:
        put_table(root / page, frame_markdown(table(load_record(claim))), name)


def _seeds(of: Record) -> str:
    count = len(of["seeds"])
    return f"measured here, {count} seed{'s' * (count > 1)}"


def _models(record: Record) -> list[str]:
    return list(dict.fromkeys(r["model"] for r in record["rows"]))


def _mean_and_range(values: list[float]) -> str:
    return f"{sum(values) / len(values):.1f} % ({min(values):.0f}-{max(values):.0f})"


def _frame(rows: list[tuple[str, ...]], *columns: str) -> DataFrame:
    from pandas import DataFrame

    return DataFrame(rows, columns=list(columns))


def _by_column(label: str, columns: dict[str, dict[str, str]]) -> DataFrame:
    """Return {column: {row label: cell}} as a table whose first column has the labels."""
    from pandas import DataFrame

    return DataFrame(columns).rename_axis(label).reset_index()


if __name__ == "__main__":
    write_tables()
    write_pictures()
