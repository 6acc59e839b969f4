"""The trade-off plane: how much of the narrow task each model does, against how misaligned it is elsewhere.

A method that only learns less moves along the curve of plain fine-tuning; a method that helps leaves it. So
every comparison shows both axes, each with its interval, and never one of them alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from caft_utils.evaluation.measurement import Result, measure

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from caft_utils.store import Store
    from caft_utils.tasks.task import Task

RATES = {
    "misaligned": "misaligned, of coherent answers elsewhere",
    "coherent": "coherent answers elsewhere",
    "task": "narrow task, held out",
}


@dataclass
class Comparison:
    """Results by label. `model` names the model in figures."""

    results: dict[str, Result]
    model: str

    def table(self) -> list[dict[str, Any]]:
        """One dict a label: each rate with <rate>_low, <rate>_high and <rate>_n, and the held-out loss."""
        table = []
        for label, result in self.results.items():
            row: dict[str, Any] = {"label": label}
            rates = (result.misaligned(), result.coherent(), result.task_score())
            for name, rate in zip(RATES, rates):
                row |= {
                    name: rate.value,
                    f"{name}_low": rate.low,
                    f"{name}_high": rate.high,
                    f"{name}_n": rate.n,
                }
            table.append(row | {"loss": result.loss})
        return table

    def figure(self):
        """The trade-off plane as a plotly figure."""
        from caft_utils.plots import tradeoff

        return tradeoff(self.table(), model=self.model)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(name)}</th>" for name in ("", *RATES.values(), "loss (nats/token)"))
        body = ""
        for row in self.table():
            cells = [
                f"{100 * row[name]:.1f} % [{100 * row[name + '_low']:.1f}, {100 * row[name + '_high']:.1f}]"
                for name in RATES
            ]
            cells.append("" if row["loss"] is None else f"{row['loss']:.3f}")
            body += (
                f"<tr><th>{escape(str(row['label']))}</th>"
                + "".join(f"<td>{cell}</td>" for cell in cells)
                + "</tr>"
            )
        return (
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            f"<p>{escape(self.model)}. Brackets: 95 % intervals, clustered by question and seed.</p>"
        )


def compare(
    models: Mapping[str, PreTrainedModel | Result | Sequence[PreTrainedModel | Result]],
    task: Task,
    seeds: Sequence[int] = (0,),
    *,
    store: Store | None = None,
    progress: bool = False,
) -> Comparison:
    """Measure models on one task, side by side.

    Args:
        models: label -> a model, a Result, or a list of either (models trained with different seeds).
        seeds: sampling seeds; every model answers all questions once for each.
    """
    results, names = {}, set()
    for label, given in models.items():
        merged = []
        for one in given if isinstance(given, Sequence) else [given]:
            if isinstance(one, Result):
                merged.append(one)
                continue
            preset = getattr(one, "caft_preset", None)
            names.add(preset.name if preset else type(one).__name__)
            merged += [measure(one, task, seed=seed, store=store, progress=progress) for seed in seeds]
        results[label] = Result.merge(merged)
    return Comparison(results, f"{', '.join(sorted(names)) or 'model not named'}: {task.name}")
