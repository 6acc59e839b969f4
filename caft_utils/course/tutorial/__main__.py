"""Command line: run the course, record it, or check what was recorded."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import suppress
from pathlib import Path

from caft_utils.course.tutorial.signals import Stopped, stopped_by_signals

ROOT = Path(__file__).resolve().parents[3]


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status.

    It is 0, 1 on a failed or stale notebook, and 128 and the signal's number after a signal (130 on Ctrl-C).
    """
    parser = argparse.ArgumentParser(prog="python -m caft_utils.course.tutorial", description=__doc__)
    parser.add_argument("--model", help="classroom, a hub id or a local path (default: the notebooks' own)")
    parser.add_argument("--seed", type=int, help="seed of every random choice")
    parser.add_argument("--fast", action="store_true", help="fewer samples: for tests, not for measuring")
    parser.add_argument("--only", nargs="+", metavar="NN", help="run these notebooks only, e.g. 02 06")
    parser.add_argument("--jobs", type=int, help="notebooks side by side (default: 2 on the classroom model)")
    parser.add_argument("--notebooks", type=Path, default=ROOT / "notebooks", help="folder of NN_name.ipynb")
    parser.add_argument("--build", type=Path, default=ROOT / "build", help="output folder")
    parser.add_argument("--no-fork", action="store_true", help="start every kernel as a new process")
    parser.add_argument("--record", action="store_true", help="write the outputs into the notebooks")
    parser.add_argument(
        "--check", action="store_true", help="only check that recorded outputs match the code"
    )
    options = parser.parse_args(arguments)
    if options.jobs is not None and options.jobs < 1:
        parser.error(f"--jobs must be 1 or more, got {options.jobs}")
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
    jobs = options.jobs or _jobs(options.model)
    _environment(options.build.resolve(), options.record, jobs)
    out = options.build.resolve() / "tutorial"
    try:
        with stopped_by_signals():
            return _run(paths, out, parameters, options.record, jobs, not options.no_fork)
    except Stopped as stopped:
        _tell(f"Interrupted ({stopped}). What ran so far is kept in {out}")
        return 128 + stopped.number
    except OSError as error:
        _tell(f"{error}. What ran so far is kept in {out}")
        return 1


def _jobs(model: str | None) -> int:
    """Return 2 on the classroom model if there is a second core. A real model needs all of the memory."""
    return 2 if model in (None, "classroom") and (os.cpu_count() or 1) > 1 else 1


def _environment(build: Path, record: bool, jobs: int) -> None:
    """Set the environment that kernels inherit; variables that the reader has set stay as they are."""
    if jobs > 1:  # more threads than cores are slower than one thread each
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
        # Texts are tokenised one by one, and a thread of its own for each waits for a free core.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("CAFT_STORE", str(build / "store"))
    # `notebook` embeds plotly.js in the page, which then works without a network. A recorded notebook holds a
    # static image, which code hosts show.
    os.environ.setdefault("PLOTLY_RENDERER", "plotly_mimetype+notebook" + ("+png" if record else ""))
    os.environ.setdefault(
        "JUPYTER_PREFER_ENV_PATH", "1"
    )  # the kernel of this environment, not one of the user's
    os.environ.setdefault(
        "PYDEVD_DISABLE_FILE_VALIDATION", "1"
    )  # silences a debugger warning in every kernel


def _run(paths: list[Path], out: Path, parameters: dict, record: bool, jobs: int, fork: bool) -> int:
    from caft_utils.course.tutorial.forked_kernel import can_fork_kernels, start_server

    if fork and can_fork_kernels():
        start_server()  # before the imports below, which take seconds too

    from caft_utils.course.tutorial.html import write_guide, write_html, write_index
    from caft_utils.course.tutorial.progress import minutes_of
    from caft_utils.course.tutorial.runner import run_all
    from caft_utils.course.tutorial.stamp import write_recorded

    unwritten: list[str] = []

    def finished(run, runs):
        try:
            if run.notebook is not None:
                write_html(run.notebook, out / f"{run.path.stem}.html")
            write_index(runs, out / "index.html")
        except OSError as error:  # the other notebooks go on
            unwritten.append(f"The page of {run.path.stem} or the index could not be written: {error}")

    runs = run_all(paths, out, parameters, jobs=jobs, finished=finished, fork_kernels=fork)
    try:
        write_guide(ROOT / "docs" / "glossary.md", out / "glossary.html")
    except OSError as error:
        unwritten.append(f"The page of the glossary could not be written: {error}")
    if problems := [run.error for run in runs if run.status == "failed"] + unwritten:
        _tell("\n".join(problems))
        _tell(f"What ran before the failure is kept in {out}")
        return 1
    if record:  # only after all have run: a course is recorded as a whole
        for run in runs:
            write_recorded(run.notebook, run.path, root=ROOT)
        return _check(paths)
    ran = f"Ran {len(runs)} of {len(runs)} notebooks in {minutes_of(runs):.1f} minutes."
    print(f"{ran} Open {out / 'index.html'}")
    return 0


def _tell(text: str) -> None:
    with suppress(OSError):  # the terminal was closed
        print(text, file=sys.stderr, flush=True)


def _check(paths: list[Path]) -> int:
    from caft_utils.course.tutorial.stamp import stale_reasons

    problems = [f"{path.name}: {problem}" for path in paths for problem in stale_reasons(path)]
    print("\n".join(problems) or f"in step with their code: {', '.join(path.stem for path in paths)}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
