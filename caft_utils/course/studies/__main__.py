"""Command line: run the experiment of a YAML file and print its rows, or write them as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from caft_utils.course.studies.experiment import Experiment, run
from caft_utils.course.studies.persona import print_rows
from caft_utils.store import write_atomically


def main(arguments: list[str] | None = None) -> int:
    """Run one experiment and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m caft_utils.course.studies", description=__doc__)
    parser.add_argument("file", type=Path, help="an experiment, for example data/experiments/emergent.yaml")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="write the rows to this file")
    options = parser.parse_args(arguments)
    try:
        experiment = Experiment.from_yaml(options.file)
        rows = run(experiment)
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print_rows(rows)
    if options.output:
        try:
            write_atomically(options.output, json.dumps(rows, indent=1) + "\n")
        except OSError as error:
            print(f"The rows are above, but not in {options.output}: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
