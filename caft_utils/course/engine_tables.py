"""The tables of the records "nnsight", "judge" and "architectures"; pages.py writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from caft_utils.course.table_frames import Record, text_frame
from caft_utils.formatting import format_estimate, format_rate

if TYPE_CHECKING:
    from pandas import DataFrame


def engines_table(record: Record) -> DataFrame:
    """Return the table of claim "nnsight": a step in each engine, and how far they agree."""
    rows = []
    for of in record["rows"]:
        low, high = of["quartiles"]
        setting = ", gradient checkpointing" if of["checkpointing"] else ""
        setting += f", {of['batch_size']} rows" if "batch_size" in of else ""
        agree = [f"{of[name] or 0:.2g}" if name in of else "" for name in ("logits", "gradients")]
        agree.append(f"{of['same_answers']} of {of['answers']}" if "answers" in of else "")
        times = f"{of['milliseconds']:.0f} ({low:.0f}-{high:.0f})", f"{of['times_plain']:.2f}"
        rows.append((of["model"] + setting, of["condition"], *times, of.get("against", ""), *agree))
    names = ("ms a step (quartiles)", "times plain hooks", "compared with", "logits", "gradients", "answers")
    return text_frame(rows, "model", "engine", *names)


def judge_table(record: Record) -> DataFrame:
    """Return the scores of claim "judge": how each judge's agree with the exact grader."""
    rows = []
    for of in (of for of in record["rows"] if "auroc" in of):
        scale, judge = of["condition"].split(": ")
        shown = [_with_interval(of[name]) for name in ("auroc", "auroc of shuffled pairs", "spearman")]
        answered = f"{(1 - of['unanswered']) * of['answers']:.0f} of {of['answers']}"
        mass = f"{of['mass on numbers']:.2f}" if "mass on numbers" in of else ""
        rows.append((scale, _judge_name(of, judge), *shown, answered, mass, of["told"]))
    names = ("AUROC", "AUROC, scores of other answers", "Spearman", "answers with a score")
    return text_frame(rows, "score", "judge", *names, "probability of numbers", "is told")


def judge_use_table(record: Record) -> DataFrame:
    """Return the verdicts and the advice of claim "judge"."""
    rows = []
    for of in record["rows"]:
        kind, judge = of["condition"].split(": ")
        if kind == "verdicts":
            one = f"{100 * of['agreement of one verdict for all']:.0f} %"
            shown = format_rate(*of["agreement"])
            rows.append(("exact verdict, at 30 and 50", _judge_name(of, judge), shown, one, ""))
        elif kind == "advice":
            shown = format_rate(*of["good preferred"])
            same = format_rate(*of["agrees with log-probability"])
            rows.append(("good advice above absurd advice", _judge_name(of, judge), shown, "50 %", same))
    names = ("right", "judge", "share", "without a judge", "prefers what the log-probability prefers")
    return text_frame(rows, *names)


def _judge_name(of: dict[str, Any], judge: str) -> str:
    own = judge.startswith(("as released", "trained"))
    return f"{of['model']}, {judge}" if own else judge


def _with_interval(values: list[float] | None) -> str:
    return format_estimate(*values) if values else "no score to compare"


def architectures_table(record: Record) -> DataFrame:
    """Return the record "architectures": what must not change a result, largest over architectures."""
    rows = []
    for of in (of for of in record["rows"] if "by architecture" in of):
        keys = ("loss", "adapter", "adapter without ablation")
        cells = [f"{of[key]:.1g}" if key in of else "" for key in keys]
        equal = f"{of['same_answers']} of {of['answers']}" if "answers" in of else ""
        rows.append((of["condition"], *cells, equal, ", ".join(of["by architecture"])))
    names = ("loss", "adapter", "adapter without ablation", "equal answers and verdicts", "architectures")
    return text_frame(rows, "compared", *names)
