"""What pages show of the records: the README's tables and picture, and those of the data card.

Each is a function of a record alone, so that a test can prove the page in step with it.
"""

from __future__ import annotations

from typing import Any

from caft_utils.course.paper_results import PAPER_SETTINGS
from caft_utils.course.records import PAPER, percent, row

SHOWN = (
    "base",
    "plain",
    "CAFT",
    "random directions",
    "a read component that is not the persona",
    "mean difference",
    "ablation at test only",
    "secure data",
)


def readme_table(record: dict[str, Any]) -> str:
    """The README's table "paper / measured here", from the record of claim "emergent"."""
    lines = ["| model | fine-tuning | misaligned elsewhere | narrow task | from |", "|---|---|---|---|---|"]
    for model, condition, misaligned, task in PAPER:
        lines.append(f"| {model} | {condition} | {misaligned} % | {task} % | paper |")
    for model in dict.fromkeys(r["model"] for r in record["rows"]):
        for condition in SHOWN:
            found = row(record, model, condition)
            cells = f"{percent(found['misaligned'])} | {percent(found['task'])}"
            lines.append(f"| {model} | {condition} | {cells} | measured here, {len(found['seeds'])} seeds |")
    return "\n".join(lines)


TWIN_MODELS = ("classroom-qwen", "qwen-full", "classroom-mistral", "mistral-window")
TWINS = (
    "base",
    "plain",
    "nearest component, the layers of the course",
    "nearest component, every layer",
    "true direction, the layers of the course",
    "true direction, every layer",
)


def twins_table(record: dict[str, Any]) -> str:
    """The data card's table of models that differ in their attention, from the record of claim "twins"."""
    models = [model for model in TWIN_MODELS if any(r["model"] == model for r in record["rows"])]
    lines = ["| misaligned elsewhere | " + " | ".join(models) + " |", "|---|" + "---|" * len(models)]
    for condition in TWINS:
        cells = [percent(row(record, model, condition)["misaligned"]) for model in models]
        lines.append(f"| {condition} | " + " | ".join(cells) + " |")
    where = [row(record, model, "where the persona lies") for model in models]
    cosines = [" ".join(f"{c:.2f}" for c in w["cosine of the nearest component"].values()) for w in where]
    return "\n".join([*lines, "| cosine of the nearest component, by layer | " + " | ".join(cosines) + " |"])


def tradeoff_figure(record: dict[str, Any], model: str):
    """The README's picture: the conditions of one model in the trade-off plane, as a plotly figure."""
    from caft_utils.plots import tradeoff

    points = []
    for condition in SHOWN:
        found = row(record, model, condition)
        point: dict[str, Any] = {"label": condition}
        for rate in ("misaligned", "task"):
            point |= dict(zip((rate, f"{rate}_low", f"{rate}_high"), found[rate], strict=True))
        points.append(point)
    return tradeoff(points, model=f"{model}, 5 seeds")


SCORES = ("detection", "fuzzing", "embedding", "simulation", "intervention", "surprisal")
READ = ("plain", "CAFT", "CAFT, components chosen automatically", "CAFT, SAE latents")
READ += ("random directions of the latents' rank",)
BEST = {"latent": "f1_held_out", "of as many random directions": "f1_held_out_of_random"}


def reading_table(record: dict[str, Any]) -> str:
    """The README's table of claim "reading": CAFT with what a program chose, and the scores of the scores."""
    models = sorted({r["model"] for r in record["rows"]}, reverse=True)
    rows: dict[str, list[str]] = {}
    for model in models:
        of = {r["condition"]: r for r in record["rows"] if r["model"] == model}
        for condition in READ:
            rows.setdefault(f"misaligned: {condition}", []).append(percent(of[condition]["misaligned"]))
        for what, key in BEST.items():
            label = f"best {what} for the villain, F1 on held-out wordings"
            rows.setdefault(label, []).append(f"{of['villain latent'][key]:.2f}")
        truth = of["scores against the truth"]
        rows.setdefault("directions with a known label", []).append(str(truth["directions"]))
        for score in SCORES:
            said = "{:.2f} ({:.2f}-{:.2f})".format(*truth["scores"][score]["auroc"])
            rows.setdefault(f"{score}: AUROC, right against wrong explanations", []).append(said)
    lines = ["| measured here | " + " | ".join(models) + " |", "|---|" + "---|" * len(models)]
    return "\n".join([*lines, *(f"| {label} | {' | '.join(cells)} |" for label, cells in rows.items())])


CUES = {
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
# Gemma-2-2B, in percent where the cue is wrong: the mean of the 16 settings, and gender (arXiv 2507.16795,
# sections 5 and 6; means of seeds, recomputed from the authors' published result tables).
FIRM = "gender, firm base"  # the setting of the claim in which the base has the stereotype fully
PAPER_GENDER = {"plain": 8.3, "SAE": 76.0, "PCA": 63.7}


def cues_table(record: dict[str, Any]) -> str:
    """The README's table of claim "cues": right where the cue is wrong, in percent, mean (lowest-highest).

    gender: asked of classroom-gender; firm base: of classroom-cues.
    """
    of = {(r["setting"], r["condition"]): r for r in record["rows"] if "ood_accuracy" in r}
    names = [f"{a}{'*' * (i == 'first')} | {b}{'*' * (i == 'second')}" for a, b, i in PAPER_SETTINGS]
    lines = [
        f"| model | fine-tuning | {len(names)} settings | gender | {FIRM} | from |",
        "|---|---|---|---|---|---|",
    ]

    def line(model: str, method: str, values: list[float], gender: str, firm: str, source: str) -> None:
        said = "not measured"
        if len(values) == len(names):  # a mean of some settings would be another figure
            said = f"{sum(values) / len(names):.1f} % ({min(values):.0f}-{max(values):.0f})"
        lines.append(f"| {model} | {CUES[method]} | {said} | {gender} | {firm} | {source} |")

    for place, method in enumerate(PAPER_GENDER):
        values = [paper[place] for paper in PAPER_SETTINGS.values()]
        line("Gemma-2-2B", method, values, f"{PAPER_GENDER[method]} %", "", "paper")
    for method in CUES:
        if ("gender", method) in of:
            found = [of[name, method] for name in names if (name, method) in of]
            genders = [of.get((name, method)) for name in ("gender", FIRM)]
            seeds = sorted({len(r["seeds"]) for r in (*found, *genders) if r})
            source = f"measured here, {'-'.join(map(str, seeds))} seeds"
            values = [100 * r["ood_accuracy"][0] for r in found]
            said = (percent(r["ood_accuracy"]) if r else "not measured" for r in genders)
            line("classroom", method, values, *said, source)
    return "\n".join(lines)
