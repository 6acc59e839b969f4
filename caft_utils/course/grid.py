"""A grid of measurements (settings x methods x seeds) that resumes where a killed run stopped.

Each cell is stored as soon as it is measured, with the seconds that it took. A later run reads these cells
and measures the rest. The time left is estimated from the cells of the current run alone. The total time
counts all cells, whichever run measured them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from caft_utils.course.records import machine_name
from caft_utils.evaluation.measurement import Result
from caft_utils.finetuning import processes
from caft_utils.store import Store, default_store

FORMAT = 2  # increase it when the same key would give different results
Cell = tuple[str | int | float, ...]


@dataclass
class Grid:
    """Results by cell, with the seconds that each measurement took and its machine.

    Cells that were stored before machines were recorded are not in `machines`.
    """

    results: dict[Cell, Result]
    seconds: dict[Cell, float]
    machines: dict[Cell, str] = field(default_factory=dict)

    @property
    def total_seconds(self) -> float:
        return sum(self.seconds.values())

    def merged(self, places: Sequence[int]) -> dict[Cell, Result]:
        """Merge the results of all cells whose names agree in `places`.

        With places (0, 1) of (setting, method, seed), for example, the seeds are merged.
        """
        groups: dict[Cell, list[Result]] = {}
        for cell, result in self.results.items():
            groups.setdefault(tuple(cell[i] for i in places), []).append(result)
        return {name: Result.merge(group) for name, group in groups.items()}


def run_grid(
    cells: Sequence[Cell],
    measured: Callable[..., Result],
    *,
    key: Mapping[str, Any] | Callable[..., Mapping[str, Any]],
    store: Store | None = None,
    progress: bool = True,
    skip_missing: bool = False,
) -> Grid:
    """Call `measured(*cell)` for every cell that is not stored yet, in order, and return all results.

    Processes that measure the same cells in one store take different ones.

    Args:
        cells: names, for example (setting, method, seed), without repetition.
        key: all that a result depends on besides its cell (fingerprints of the model and of items, recipe,
        the version of the methods). A stored cell counts for the same key only. Where cells depend on
        different things, a function of the cell.
        progress: a bar with the time left.
        skip_missing: measure nothing and return only stored cells, to inspect an unfinished grid.

    Raises:
        ValueError: a cell is named twice.
        RuntimeError: a launcher has started several processes. They would take different cells, and a
            fine-tuning of one would wait for the others for ever.
    """
    if not processes.is_alone():
        raise RuntimeError(
            "a grid cannot run under a launcher of several processes; start several processes without one, "
            "and each takes the cells that no other has taken"
        )
    cells = [tuple(cell) for cell in cells]
    if twice := {str(cell) for cell in cells if cells.count(cell) > 1}:
        raise ValueError(f"cells named twice: {', '.join(sorted(twice))}")
    store = store or default_store()
    more = {cell: key(*cell) if callable(key) else key for cell in cells}
    keys = {cell: {"format": FORMAT, "cell": list(cell), **more[cell]} for cell in cells}
    there = {cell: folder for cell in cells if (folder := store.get("grid", keys[cell]))}
    if skip_missing:
        cells = list(there)
    todo = [cell for cell in cells if cell not in there]

    from tqdm.auto import tqdm

    with tqdm(total=len(cells), initial=len(there), unit="cell", disable=not progress) as bar:
        for cell in store.shared(todo, "grid", keys.__getitem__):
            bar.set_description(" ".join(map(str, cell)))

            def write(folder: Path, cell=cell) -> None:
                started = time.monotonic()
                result = measured(*cell)
                seconds = time.monotonic() - started
                value = {"result": asdict(result), "seconds": seconds, "machine": machine_name()}
                (folder / "cell.json").write_text(json.dumps(value))

            there[cell] = store.fetch("grid", keys[cell], write)
            bar.update()
    values = {cell: json.loads((there[cell] / "cell.json").read_text()) for cell in cells}
    return Grid(
        {cell: Result.from_json(value["result"]) for cell, value in values.items()},
        {cell: value["seconds"] for cell, value in values.items()},
        {cell: value["machine"] for cell, value in values.items() if "machine" in value},
    )
