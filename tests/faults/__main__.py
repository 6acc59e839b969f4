"""Break the package on purpose and count what happens, by target.

    make faults                                       all targets, about 14 minutes on two cores
    make faults ARGS="--only rows items" SEED=3       some of them, with other faults
    make faults ARGS="--only rows --try 17"           one try again; its input is in build/faults/rows/try-17

The exit status is 1 if anything was silent, lost, executed, leaked or hung, or if more than 1 % of the inputs
of a target raised a raw exception.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections import Counter
from multiprocessing.connection import wait
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")
TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

SECONDS, JOBS = 800, 2
GRACE = 150  # seconds that a target may take beyond its share before it counts as hung
COLUMNS = ("silent", "lost", "executed", "leaked", "hung", "broken", "raw", "refused", "fine")


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="make faults", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0, help="determines the fault of each try")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help=f"for all targets together (default {SECONDS})"
    )
    parser.add_argument("--tries", type=int, help="largest number of tries of a target")
    parser.add_argument("--try", type=int, dest="number", help="make this one try only")
    parser.add_argument("--only", nargs="+", metavar="TARGET", help="these targets only")
    parser.add_argument("--jobs", type=int, default=JOBS, help="targets side by side")
    parser.add_argument(
        "--out", type=Path, default=TESTS.parent / "build" / "faults", help="logs and failing inputs"
    )
    options = parser.parse_args(arguments)
    started = time.monotonic()
    from faults.jobs import preload
    from faults.outcomes import failed
    from faults.targets import TARGETS

    if unknown := set(options.only or ()) - set(TARGETS):
        parser.error(f"unknown targets {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    os.environ["CAFT_STORE"] = str(options.out / "store")  # a fault that misses must not hit the user's own
    names = options.only or list(TARGETS)
    options.out.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(options.out / "references", ignore_errors=True)
    if any(TARGETS[name].preload for name in names):
        preload()
    total = sum(TARGETS[name].weight for name in names)
    print(f"{len(names)} targets, seed {options.seed}, at most {options.seconds:.0f} s", flush=True)
    print(f"{'target':18}{'tries':>7}" + "".join(f"{kind:>9}" for kind in COLUMNS), flush=True)
    left = max(1.0, options.seconds - (time.monotonic() - started))
    both = left * min(options.jobs, len(names))
    shares = {name: min(left, both * TARGETS[name].weight / total) for name in names}
    broken: dict[str, list[str]] = {}
    for name, tally in _run(names, shares, options):
        print(f"{name:18}{tally.total():7}" + "".join(f"{tally[kind]:9}" for kind in COLUMNS), flush=True)
        if tally["skipped"]:
            print(f"  {name} cannot be tried on this machine")
        if reasons := failed(tally):
            broken[name] = reasons
            _show_failures(options.out / name)
    print(f"{time.monotonic() - started:.0f} s; logs and failing inputs are in {options.out}")
    for name, reasons in broken.items():
        again = f"make faults SEED={options.seed} ARGS='--only {name}'"
        print(f"FAILED {name}: {', '.join(reasons)}; again: {again}")
    return 1 if broken else 0


def _run(names, shares, options):
    """Run targets in processes of their own, the longest first, and yield (name, counts) as they end."""
    from faults.running import FORK

    waiting = sorted(names, key=lambda name: -shares[name])
    running = {}
    try:
        while waiting or running:
            while waiting and len(running) < options.jobs:
                name = waiting.pop(0)
                process = FORK.Process(target=_target, args=(name, shares[name], options))
                process.start()
                running[process.sentinel] = (name, process, time.monotonic() + shares[name] + GRACE)
            wait(list(running), timeout=5)
            for sentinel, (name, process, deadline) in list(running.items()):
                if process.is_alive() and time.monotonic() < deadline:
                    continue
                died = process.is_alive() or process.exitcode != 0
                process.kill()  # its children end with it
                process.join()
                del running[sentinel]
                yield name, _counts(options.out / name, died)
    finally:
        for _, process, _ in running.values():
            process.kill()


def _target(name: str, seconds: float, options) -> None:
    from faults.running import end_with_parent, run_target
    from faults.targets import TARGETS

    end_with_parent()
    output = os.open(options.out / f"{name}.txt", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(output, 1)  # progress bars, warnings and stack traces of other libraries
    os.dup2(output, 2)
    run_target(
        name, TARGETS[name].target, options.out, seed=options.seed, seconds=seconds, tries=options.tries,
        only=options.number,
    )  # fmt: skip


def _counts(folder: Path, died: bool) -> Counter:
    log = folder / "log.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    counts = Counter(json.loads(line)["kind"] for line in lines if line.endswith("}"))
    if died:  # the folder of the last try is still there
        counts["hung"] += 1
    return counts


def _show_failures(folder: Path, most: int = 5) -> None:
    entries = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    for entry in [e for e in entries if e["kind"] not in ("fine", "refused", "skipped")][:most]:
        print(f"  try {entry['try']}, {entry['kind']}: {entry['detail'][-400:]}".replace("\n", " | "))


if __name__ == "__main__":
    sys.exit(main())
