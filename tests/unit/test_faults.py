"""The fault harness itself: its targets run, and it reports a reader that breaks each of the rules."""

from __future__ import annotations

import base64
import json
import time
from random import Random

import pytest
from faults import disks, flips, kills, mutate, replies, writers
from faults.__main__ import main
from faults.outcomes import NEVER, Outcome, failed, reading, refusal
from faults.running import Child, ChildError, Hung, run_target, time_limit
from faults.targets import TARGETS

# Those with `preload` train, or import sae-lens, which takes seconds.
SLOW = ("pages", "models", "killed-questions")
QUICK = [name for name, entry in TARGETS.items() if not entry.preload and name not in SLOW]


@pytest.mark.parametrize("name", QUICK)
def test_readers_keep_the_rules(name, tmp_path):
    counts = run_target(name, TARGETS[name].target, tmp_path, seed=1, tries=4)
    seen = (tmp_path / name / "log.jsonl").read_text()
    assert counts.total() == 4 and not [kind for kind in NEVER if counts[kind]], seen


@pytest.mark.parametrize("target", [kills.killed, disks.bad_disks, flips.flips, writers.two_writers])
def test_processes_keep_the_rules(target, tmp_path):
    def run():  # in a process of its own, whose mounts are its own too
        return run_target("x", lambda home: target(home, ("tokens",)), tmp_path, seed=1, tries=2)

    counts = Child(run, folder=tmp_path / "child").result(60)
    seen = (tmp_path / "x" / "log.jsonl").read_text()
    assert sum(counts.values()) == 2 and not set(NEVER) & set(counts), seen


def numbers(path):
    return [int(line) for line in path.read_text().split()]


def tolerant(path):
    return [int(word) for word in path.read_text(errors="replace").split() if word.isdigit()]


def endless(path):
    while True:
        time.sleep(0.01)


@pytest.mark.parametrize("reader, kind", [(numbers, "raw"), (tolerant, "silent"), (endless, "hung")])
def test_a_broken_reader_is_reported_and_its_input_kept(reader, kind, tmp_path, monkeypatch):
    monkeypatch.setattr("faults.running.LIMIT", 0.2)

    def target(home):
        def attempt(rng, folder):
            path = folder / "numbers.txt"
            path.write_bytes(b"1 2 3 \xff" if reader is numbers else b"1 2 x3")
            agrees = {True: None, False: "a number is missing"}
            return reading(
                lambda: reader(path), about=[path.name], agrees=lambda found: agrees[found == [1, 2, 3]]
            )

        return attempt

    counts = run_target("toy", target, tmp_path, seed=0, tries=2)
    assert counts == {kind: 2} and failed(counts)
    assert (tmp_path / "toy" / "try-1" / "numbers.txt").exists()
    assert json.loads((tmp_path / "toy" / "log.jsonl").read_text().splitlines()[1])["kind"] == kind


def test_bounds():
    assert not failed({"fine": 5, "refused": 400, "raw": 4})
    assert failed({"fine": 5, "refused": 300, "raw": 4})
    assert all(failed({"fine": 10**6, kind: 1}) for kind in NEVER)


def test_only_errors_of_the_package_that_name_something_count_as_refusals(tmp_path):
    from caft_utils.directions import Directions

    def judged(call):
        try:
            call()
        except Exception as error:
            return refusal(error, [str(tmp_path)]).kind

    def foreign():
        raise ValueError(f"a long sentence about {tmp_path} by another library")

    assert judged(lambda: Directions.load(tmp_path)) == "refused"
    assert judged(lambda: open(tmp_path / "missing")) == "refused"  # the system names the file
    assert judged(foreign) == "raw" and judged(lambda: {}[str(tmp_path)]) == "raw"
    assert judged(lambda: Directions({})) == "raw"  # names no file


def test_one_seed_gives_one_fault():
    value = {"rows": [{"a": 1, "b": ["x", 2.5]}], "c": None}

    def made(seed):
        rng = Random(seed)
        return [mutate.changed_json(value, rng) for _ in range(20)] + [mutate.changed_text("a,b\n1,2\n", rng)]

    assert made(3) == made(3) != made(4)
    assert value == {"rows": [{"a": 1, "b": ["x", 2.5]}], "c": None}
    changed = mutate.flipped(b"abc", Random(0))
    assert sum((one ^ other).bit_count() for one, other in zip(b"abc", changed)) == 1


@pytest.mark.parametrize("spelling", sorted(replies.SPELLINGS))
def test_the_planted_key_is_found_in_every_spelling(spelling):
    echoed = f"prefix {replies.SPELLINGS[spelling](replies.KEY)} suffix"
    assert replies.spells_key(echoed) and replies.spells_key(json.dumps({"text": echoed}))
    middle = len(echoed) // 2
    assert not replies.spells_key(echoed[: middle - 3] + echoed[middle + 3 :])
    assert not replies.spells_key(
        base64.b64encode(b"another text that is as long as a key, or longer").decode()
    )


def test_children_are_killed_and_their_errors_come_back(tmp_path):
    child = Child(endless, tmp_path, folder=tmp_path / "killed")
    child.kill_after(0.05)
    with pytest.raises(ChildError, match="status -9"):
        child.result(1)
    with pytest.raises(ChildError, match="no such file|No such file"):
        Child(numbers, tmp_path / "missing", folder=tmp_path / "broken").result(10)
    with pytest.raises(TimeoutError):
        Child(endless, tmp_path, folder=tmp_path / "slow").result(0.05)
    with pytest.raises(Hung), time_limit(0.05):
        endless(None)


def test_the_command_counts_by_target_and_fails_where_a_bound_is_broken(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CAFT_STORE", str(tmp_path / "store"))
    entry = type(TARGETS["rows"])
    monkeypatch.setitem(TARGETS, "toy", entry(lambda home: lambda rng, folder: Outcome("silent", "wrong"), 1))
    run = ["--only", "toy", "directions", "--tries", "2", "--jobs", "1", "--out", str(tmp_path / "out")]
    assert main(run) == 1
    printed = capsys.readouterr().out
    assert "FAILED toy: 2 silent" in printed and "FAILED directions" not in printed
    assert main(["--only", "directions", *run[3:]]) == 0
