"""Command line of the package.

python -m caft_utils plan MODEL             what an experiment on this model costs, before it runs
python -m caft_utils run EXPERIMENT.yaml    measure an experiment
python -m caft_utils serve MODEL            start vLLM, which writes and judges answers
"""

from __future__ import annotations

import sys
from importlib import import_module

COMMANDS = {
    "plan": "caft_utils.course.plan",
    "run": "caft_utils.course.run",
    "serve": "caft_utils.backends.vllm",
}


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return the exit status."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or [""]
    if name not in COMMANDS:
        print(__doc__, file=sys.stderr)
        return 0 if name in ("-h", "--help") else 2
    return import_module(COMMANDS[name]).main(rest)


if __name__ == "__main__":
    sys.exit(main())
