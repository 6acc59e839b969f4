"""The tables of the claims "nnsight" and "judge"; pages.py writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame


def engines_table(record: dict[str, Any]) -> DataFrame:
    """Return the table of claim "nnsight": a step in each engine, and how far they agree."""
    from pandas import DataFrame

    rows = []
    for of in record["rows"]:
        low, high = of["quartiles"]
        checkpointing = ", gradient checkpointing" if of["checkpointing"] else ""
        agree = [f"{of[name] or 0:.2g}" if name in of else "" for name in ("logits", "gradients")]
        agree.append(f"{of['same_answers']} of {of['answers']}" if "answers" in of else "")
        times = f"{of['milliseconds']:.0f} ({low:.0f}-{high:.0f})", f"{of['times_plain']:.2f}"
        rows.append((of["model"] + checkpointing, of["condition"], *times, of.get("against", ""), *agree))
    names = ("ms a step (quartiles)", "times plain hooks", "compared with", "logits", "gradients", "answers")
    return DataFrame(rows, columns=["model", "engine", *names])


def judge_table(record: dict[str, Any]) -> DataFrame:
    """Return the table of claim "judge": how a local model's scores agree with the exact grader."""
    from pandas import DataFrame

    rows = []
    for of in (of for of in record["rows"] if "auroc" in of):
        values = (of["auroc"], of["auroc of shuffled pairs"], of["auroc of the number of words"])
        scores = ["{:.2f} [{:.2f}, {:.2f}]".format(*v) if v else "no score to compare" for v in values]
        readings = ", ".join(f"{count} {kind}" for kind, count in sorted(of["readings"].items()))
        rows.append((of["model"], of["condition"], *scores, str(of["answers"]), readings))
    names = ("AUROC", "scores of other answers", "number of words", "answers", "how scores were read")
    return DataFrame(rows, columns=["judge", "score", *names])
