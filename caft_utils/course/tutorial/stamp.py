"""Write the outputs of a recorded run into the committed notebooks, with a stamp of what made them.

The stamp has two parts. `metadata.caft.sources` is a sha256 of the code cells in order, and
`metadata.caft.records` has a hash of each record of measurements that the cells read. A changed cell or
record changes its hash, so stale outputs are found without running anything. The cell tagged `install`
computes nothing and is left out, because the address in it may change. The code of the package is not part of
the stamp.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from caft_utils.course.records import FOLDER, load_record
from caft_utils.store import write_atomically

PLOTLY = "application/vnd.plotly.v1+json"
WIDGET = "application/vnd.jupyter.widget-view+json"
ADDED_BY_PAPERMILL = {"injected-parameters", "papermill-error-cell-tag"}


def code_sha256(notebook: NotebookNode) -> str:
    """Return the sha256 (hex) of the notebook's own code cells in order."""
    code = [cell for cell in own_cells(notebook) if cell.cell_type == "code"]
    code = [cell.source for cell in code if "install" not in cell.metadata.get("tags", [])]
    return hashlib.sha256(json.dumps(code).encode()).hexdigest()


def record_hashes(notebook: NotebookNode) -> dict[str, str]:
    """Return {name: hash} of the records that a notebook reads.

    A record counts if its name stands in quotes in a code cell that calls `load_record`. The hash leaves out
    when and where a row was measured, which no notebook shows.
    """
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    quoted = {
        name for code in cells if "load_record(" in code for name in re.findall(r"""["']([\w-]+)["']""", code)
    }
    found = {}
    for name in sorted(quoted):
        if (FOLDER / f"{name}.json").is_file():
            record = load_record(name, FOLDER)
            record["rows"] = [{key: row[key] for key in row if key != "made"} for row in record["rows"]]
            found[name] = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:12]
    return found


def own_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the cells without the ones that papermill adds when it runs a notebook."""
    return [cell for cell in notebook.cells if ADDED_BY_PAPERMILL.isdisjoint(cell.metadata.get("tags", []))]


def write_recorded(executed: NotebookNode, path: Path, *, root: Path) -> None:
    """Copy the outputs of an executed copy into the notebook at `path`, and stamp it.

    Only outputs and execution counts are copied, not papermill's times and paths. In the outputs the folders
    of this machine (`root` and the home) become `.` and `~`.

    Raises:
        ValueError: the notebook at `path` has changed since it ran.
    """
    notebook = nbformat.read(path, as_version=4)
    if code_sha256(executed) != code_sha256(notebook):
        raise ValueError(f"{path.name} was edited while it ran: these are not its outputs. Record it again.")
    for cell, ran in zip(notebook.cells, own_cells(executed), strict=True):
        if cell.cell_type == "code":
            cell.execution_count = ran.execution_count
            outputs = [output for output in ran.outputs if _is_recorded(output)]
            cell.outputs = [_cleaned(output, root, ran.execution_count) for output in outputs]
    stamp = notebook.metadata.setdefault("caft", {})
    stamp |= {"sources": code_sha256(notebook), "records": record_hashes(notebook)}
    notebook.metadata.pop("widgets", None)
    notebook.metadata.pop("papermill", None)
    write_atomically(path, nbformat.writes(notebook) + "\n")


def stale_reasons(path: Path) -> list[str]:
    """Return the reasons why a notebook's outputs are not those of one run of its code on today's records."""
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    outputs = [output for cell in code for output in cell.outputs]
    stamp = notebook.metadata.get("caft", {}).get("sources")
    problems = []
    if stamp is None:
        problems.append("has never been recorded (make tutorial ARGS=--record)")
    elif stamp != code_sha256(notebook):
        problems.append("its code was changed after it was recorded (make tutorial ARGS=--record)")
    recorded = notebook.metadata.get("caft", {}).get("records", {})
    changed = [name for name, found in record_hashes(notebook).items() if recorded.get(name) != found]
    if stamp is not None and changed:
        names = ", ".join(f"data/results/{name}.json" for name in changed)
        problems.append(f"{names} changed after it was recorded (make tutorial ARGS=--record)")
    counts = [cell.execution_count for cell in code]
    if counts != list(range(1, len(code) + 1)):
        problems.append(f"its cells did not run once each from top to bottom: execution counts {counts}")
    if any(output.output_type == "error" for output in outputs):
        problems.append("an output is an error")
    if any(output.get("name") == "stderr" and "Traceback" in _text(output.text) for output in outputs):
        problems.append("an output holds a traceback on stderr (record it again, on a quiet machine)")
    if any(PLOTLY in output.get("data", {}) and "image/png" not in output.data for output in outputs):
        problems.append("a figure has no static image (record where chromium is installed)")
    return problems


def _is_recorded(output: NotebookNode) -> bool:
    """Return False for plotly.js (5 MB), which the renderer loads, and for widgets, which need a kernel."""
    data = output.get("data", {})
    library = set(data) <= {"text/html", "text/plain"} and len(_text(data.get("text/html", ""))) > 1_000_000
    only_widget = WIDGET in data and set(data) <= {WIDGET, "text/plain"}
    return not library and not only_widget


def _cleaned(output: NotebookNode, root: Path, count: int) -> NotebookNode:
    output = nbformat.from_dict(output)
    if output.output_type == "stream":
        # A progress bar rewrites its line with carriage returns; keep the last version.
        lines = _text(output.text).split("\n")
        output.text = _portable("\n".join(line.rstrip("\r").rsplit("\r", 1)[-1] for line in lines), root)
    for kind in list(output.get("data", {})):
        if kind == WIDGET or (kind == "text/html" and PLOTLY in output.data):
            del output.data[kind]  # the figure and its picture remain
        elif kind.startswith("text/"):
            output.data[kind] = _portable(_text(output.data[kind]), root)
    if output.output_type == "execute_result":
        output.execution_count = count
    return output


def _portable(text: str, root: Path) -> str:
    text = re.sub(r"\S*/ipykernel_\d+/\d+\.py:\d+: ", "", text)  # the temporary file of the cell that warned
    return text.replace(str(root), ".").replace(str(Path.home()), "~")


def _text(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "".join(text)
