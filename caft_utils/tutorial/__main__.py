"""Command line: run the course, record it, or check what was recorded."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 1 when a notebook failed or is out of step."""
    parser = argparse.ArgumentParser(prog="python -m caft_utils.tutorial", description=__doc__)
    parser.add_argument("--model", help="classroom, a hub id or a local path (default: the notebooks' own)")
    parser.add_argument("--seed", type=int, help="seed of every random choice")
    parser.add_argument("--fast", action="store_true", help="fewer samples: a test, no measurement")
    parser.add_argument("--only", nargs="+", metavar="NN", help="take these notebooks only, e.g. 02 06")
    parser.add_argument("--notebooks", type=Path, default=ROOT / "notebooks", help="holds NN_name.ipynb")
    parser.add_argument("--build", type=Path, default=ROOT / "build", help="gets all that is made")
    parser.add_argument("--record", action="store_true", help="write outputs into the notebooks")
    parser.add_argument("--check", action="store_true", help="only prove recorded outputs in step")
    options = parser.parse_args(arguments)
    names = {"MODEL": options.model, "SEED": options.seed, "FAST": options.fast or None}
    parameters = {name: value for name, value in names.items() if value is not None}
    if options.record and parameters:
        parser.error("--record shows what the committed cells do: run it without --model, --seed and --fast")
    paths = sorted(options.notebooks.resolve().glob("[0-9][0-9]_*.ipynb"))
    if options.only:
        paths = [path for path in paths if path.name[:2] in options.only]
    if not paths:
        parser.error(f"no notebook NN_name.ipynb in {options.notebooks} matches {options.only or 'anything'}")
    if options.check:
        return _check(paths)
    _environment(options.build.resolve(), options.record)
    return _run(paths, options.build.resolve() / "tutorial", parameters, options.record)


def _environment(build: Path, record: bool) -> None:
    """What the kernels inherit; whatever the reader has set already stays."""
    os.environ.setdefault("CAFT_STORE", str(build / "store"))
    # `notebook` embeds plotly.js in the page, so that it works without a network; a recorded notebook carries
    # a static image, for readers on a code host.
    os.environ.setdefault("PLOTLY_RENDERER", "plotly_mimetype+notebook" + ("+png" if record else ""))
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")  # this environment's kernel, not one of the user's
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # a debugger's warning in every kernel's log


def _run(paths: list[Path], out: Path, parameters: dict, record: bool) -> int:
    from caft_utils.tutorial.page import write_html, write_index
    from caft_utils.tutorial.record import write_recorded
    from caft_utils.tutorial.run import run_all

    def finished(run, runs):
        if run.notebook is not None:
            write_html(run.notebook, out / f"{run.path.stem}.html")
        write_index(runs, out / "index.html")

    runs = run_all(paths, out, parameters, finished=finished)
    failed = [run for run in runs if run.status == "failed"]
    if failed:
        print(failed[0].error, file=sys.stderr)
        print(f"What ran until there is kept in {out}", file=sys.stderr)
        return 1
    if record:  # only now: a course is recorded as a whole, or not at all
        for run in runs:
            write_recorded(run.notebook, run.path, root=ROOT)
        return _check(paths)
    minutes = sum(run.seconds for run in runs) / 60
    print(f"Ran {len(runs)} of {len(runs)} notebooks in {minutes:.1f} minutes. Open {out / 'index.html'}")
    return 0


def _check(paths: list[Path]) -> int:
    from caft_utils.tutorial.record import out_of_step

    problems = [f"{path.name}: {problem}" for path in paths for problem in out_of_step(path)]
    print("\n".join(problems) or f"in step with their code: {', '.join(path.stem for path in paths)}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
