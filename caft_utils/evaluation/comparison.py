"""Compare models on one task: a table of its rates, and the trade-off plane of its two headline rates.

A method that only learns less moves along the curve of plain fine-tuning. A method that helps leaves this
curve. Every comparison therefore shows both axes with their intervals, never one axis alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from torch import nn

from caft_utils.arguments import checked, instance, kind_of
from caft_utils.evaluation.measurement import Result, measure
from caft_utils.formatting import printable
from caft_utils.interventions.base import Intervention

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure
    from transformers import PreTrainedModel

    from caft_utils.store import Store
    from caft_utils.tasks.task import RateSpec, Task


@dataclass
class Comparison:
    """Results by label.

    model: names the models and the task in tables and figures.
    rates, headline: the task's own, see `Task`.
    """

    results: dict[str, Result]
    model: str
    rates: Mapping[str, RateSpec]
    headline: tuple[str, str]

    def table(self) -> DataFrame:
        """Return one row for each label: <rate>, <rate>_low, <rate>_high, <rate>_n, and the held-out loss."""
        import pandas

        rows = []
        for label, result in self.results.items():
            row = {"label": printable(label) if isinstance(label, str) else label}
            for name in self.rates:
                rate = result.rate(name)
                row |= {name: rate.value, f"{name}_low": rate.low, f"{name}_high": rate.high}
                row[f"{name}_n"] = rate.n
            rows.append(row | {"loss": result.loss})
        return pandas.DataFrame(rows)

    def figure(self) -> Figure:
        """Return the trade-off plane of the headline rates."""
        from caft_utils.plots import tradeoff

        x, y = self.headline
        labels = {"x_label": f"{self._label(x)} (%)", "y_label": f"{self._label(y)} (%)"}
        return tradeoff(self.table(), model=self.model, x=x, y=y, **labels)

    def _label(self, name: str) -> str:
        return printable(self.rates[name].label or name)

    def _repr_html_(self) -> str:
        import pandas

        shown = pandas.DataFrame(
            {
                self._label(name): [str(result.rate(name)) for result in self.results.values()]
                for name in self.rates
            },
            index=[printable(str(label)) for label in self.results],
        )
        losses = [result.loss for result in self.results.values()]
        shown["loss (nats/token)"] = ["" if loss is None else f"{loss:.3f}" for loss in losses]
        note = f"{escape(printable(self.model))}. Brackets: 95 % intervals, clustered by question and seed."
        for label, result in self.results.items():
            if result.unjudged:
                note += (
                    f" {escape(printable(str(label)))}: {result.unjudged} unjudged answers count in no rate."
                )
        return f"{shown.to_html(escape=True, border=0)}<p>{note}</p>"


@checked
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
        seeds: sampling seeds. Every model answers all questions once per seed. A Result keeps its own.

    Raises:
        ValueError: there is no model, or something else than a model or a Result, or a Result has other rates
            than the task, so its numbers would stand under a wrong name.
    """
    instance("models", models, Mapping, 'given by label, such as {"base": model}')
    if not models:
        raise ValueError('no model to compare; expected for example {"base": model, "tuned": tuned}')
    listed = {label: given if isinstance(given, Sequence) else [given] for label, given in models.items()}
    for label, some in listed.items():
        for one in some:
            if not isinstance(one, Result | nn.Module) or isinstance(one, Intervention):
                raise ValueError(
                    f"models[{label!r}] must be a model or a Result, such as "
                    f"measure(model, task, during=ablate(bad)), or a list of these; got {kind_of(one)}"
                )
    results, names = {}, set()
    for label, some in listed.items():
        merged = []
        for one in some:
            if isinstance(one, Result):
                _check_rates(one, task, label)
                merged.append(one)
                continue
            preset = getattr(one, "caft_preset", None)
            names.add(preset.name if preset else type(one).__name__)
            merged += [measure(one, task, seed=seed, store=store, progress=progress) for seed in seeds]
        results[label] = Result.merge(merged)
    model = f"{', '.join(sorted(names)) or 'model not named'}: {task.name}"
    return Comparison(results, model, task.rates, task.headline)


def _check_rates(result: Result, task: Task, label: str) -> None:
    for name, rate in task.rates.items():
        if name in result.rates and result.rates[name] != rate:
            raise ValueError(
                f"{label!r} is a Result whose rate {name!r} counts {result.rates[name]}, and that of task "
                f"{task.name!r} counts {rate}; compare results of one task, or rename one of the rates"
            )
