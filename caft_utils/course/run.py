"""Run the experiment of a YAML file without a notebook, and record in a folder how it was measured.

    python -m caft_utils run data/experiments/emergent.yaml --folder build/runs/emergent

The folder holds experiment.yaml, versions.json (code, packages, machine, seconds) and rows.jsonl, with one
row of rates per line. Studies store each measurement, so the same command resumes after a kill.
`--processes 2` lets two processes share the work of a study of `SHARED` in experiment.py; others refuse it.

    accelerate launch --config_file data/accelerate/ddp.yaml -m caft_utils run data/experiments/emergent.yaml

shares every fine-tuning among several GPUs, or processes on a CPU. Each measurement is made once. Studies
that take times, or start servers of their own, refuse it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from caft_utils.course.helper_processes import helpers
from caft_utils.course.records import check_numbers, circumstances
from caft_utils.course.studies.experiment import Experiment, run
from caft_utils.disk import write_atomically
from caft_utils.finetuning import processes
from caft_utils.text_files import read_text

EXPERIMENT, VERSIONS, ROWS = "experiment.yaml", "versions.json", "rows.jsonl"


def run_in_folder(file: Path, folder: Path, process_count: int = 1) -> list[dict]:
    """Measure the experiment in `file`, write its folder, and return the rows.

    process_count: how many share the measurements, see helper_processes.py.

    Raises:
        FileExistsError: the folder holds the run of another experiment.
        FileNotFoundError, ValueError: see `Experiment.from_yaml` and `run`; or a number is not finite.
        OSError: the folder cannot be written.
    """
    experiment, text = Experiment.from_yaml(file), read_text(file)
    there = folder / EXPERIMENT
    if there.exists() and read_text(there) != text:
        raise FileExistsError(
            f"{folder} holds the run of another experiment; give another folder, or remove this one"
        )
    write_atomically(there, text)  # first, so that an unwritable folder fails before hours of measuring
    started = time.monotonic()
    with helpers(experiment, process_count):
        rows = run(experiment)
    check_numbers(str(file), rows)
    made = circumstances(time.monotonic() - started)
    if processes.is_main():
        write_atomically(folder / VERSIONS, json.dumps(made, indent=1) + "\n")
        write_atomically(folder / ROWS, "".join(json.dumps(row) + "\n" for row in rows))
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Run one experiment and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m caft_utils run", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("file", type=Path, help="an experiment, for example data/experiments/emergent.yaml")
    parser.add_argument("--folder", type=Path, help="of this run; default: build/runs/NAME for NAME.yaml")
    parser.add_argument("--processes", type=int, default=1, help="that share the measurements; default: 1")
    options = parser.parse_args(arguments)
    folder = options.folder or Path("build") / "runs" / options.file.stem
    try:
        rows = run_in_folder(options.file, folder, options.processes)
    except (ValueError, RuntimeError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    if processes.is_main():
        from caft_utils.course.studies.persona import print_rows

        print_rows(rows)
        print(f"\nThe run is in {folder}")
    return 0
