"""Command line of the study of full sizes (full_size.py).

    python -m caft_utils.course.studies.scale --shape 0.5B 7B 32B --device cuda --out results.json

measures models of full shape with random weights: training steps under ablation, with and without gradient
checkpointing, and reading a model by PCA. Every shape runs in its own process, so a shape that does not fit
into memory does not affect the others.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from caft_utils.arguments import refuse_unknown
from caft_utils.course.shapes import all_shapes, shape
from caft_utils.course.studies.full_size import CONDITIONS, scale_rows
from caft_utils.course.studies.study_rows import Row
from caft_utils.disk import write_atomically


def measured_rows(options: argparse.Namespace) -> Iterator[Row]:
    """Yield one row or error for each shape and condition. Each of several shapes gets its own process."""
    names = ("device", "dtype", "batch_size", "accumulate", "length", "steps", "reading_batch_size", "tokens")
    sizes = {name: value for name in names if (value := getattr(options, name)) is not None}
    if len(options.shape) > 1:
        for name in options.shape:
            yield from _in_own_process(name, sizes, options.conditions)
        return
    one = options.shape[0]
    conditions = options.conditions or shape(one).check.get("conditions", CONDITIONS)
    for condition in conditions:
        started = time.monotonic()
        try:
            (row,) = scale_rows(one, [0], (condition,), **sizes)
        except Exception as error:  # any failure costs only this row
            traceback.print_exc()
            row = {"model": one, "condition": condition, "error": f"{type(error).__name__}: {error}"}
        yield {**row, "seconds": round(time.monotonic() - started, 1)}


def _in_own_process(name: str, sizes: Row, conditions: Sequence[str] | None) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.json"
        command = [sys.executable, "-m", __spec__.name, "--shape", name, "--out", str(out)]
        for option, value in sizes.items():
            command += [f"--{option.replace('_', '-')}", str(value)]
        if conditions:
            command += ["--conditions", *conditions]
        status = subprocess.run(command).returncode
        rows = json.loads(out.read_text()) if out.exists() else []
        yield from rows
        if status and not any("error" in row for row in rows):
            yield {"model": name, "error": f"its process ended with status {status}"}


def main(arguments: list[str] | None = None) -> int:
    """Measure shapes, print a line for each row, and return the exit status: 1 if a row is an error."""
    parser = argparse.ArgumentParser(prog="python -m caft_utils.course.studies.scale", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--shape", nargs="+", required=True, metavar="NAME", help=", ".join(all_shapes()))
    parser.add_argument("--conditions", nargs="+", choices=CONDITIONS, help="default: those of the shape")
    parser.add_argument("--device", help="default: cuda if there is a GPU, else cpu")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), help="default: that of the preset")
    for name in ("batch-size", "accumulate", "length", "steps", "reading-batch-size", "tokens"):
        parser.add_argument(f"--{name}", type=int, help="see scale_rows; default: that of the shape")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write the rows to this file")
    options = parser.parse_args(arguments)
    try:
        refuse_unknown("shapes", options.shape, all_shapes())
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    rows: list[Row] = []
    for row in measured_rows(options):
        rows.append(row)
        if len(options.shape) == 1 or "condition" not in row:  # the process of a shape has printed its rows
            print(json.dumps({k: v for k, v in row.items() if k != "seconds_of_steps"}), flush=True)
        if options.out:  # after every row, so that a kill loses one
            write_atomically(options.out, json.dumps(rows, indent=1) + "\n")
    return int(any("error" in row for row in rows))


if __name__ == "__main__":
    sys.exit(main())
