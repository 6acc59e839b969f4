"""Files that the package wrote for itself: artefacts with manifests, cached replies, selections, records.

An artefact of the store heals: whatever happens to it, the same call gives the same value again. The other
files are refused or read as they are.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from pathlib import Path
from random import Random

import torch
from helpers.chat_server import alternatives, chat_server
from helpers.explorers import component_explorer

from caft_utils.course.records import load_record, record_frame, save_record
from caft_utils.features import Selection
from caft_utils.interpret.endpoint import Endpoint, Reply
from caft_utils.interpret.endpoint.response_cache import ResponseCache
from caft_utils.interpret.explorer import Decisions
from caft_utils.interpret.select.automatic import AutomaticSelection, Reason
from caft_utils.store import Store
from caft_utils.stored_results import fetch_json, fetch_tensors
from faults.folder_readers import damage
from faults.mutate import changed_json, changed_value
from faults.outcomes import Outcome, reading
from faults.running import Attempt
from faults.text_readers import plain_text, same_json


def artefacts(home: Path) -> Attempt:
    """Stored values and tensors, whose folders, manifests and keys are damaged or exchanged."""
    value, tensor = {"answers": [1, 2.5, "caf\u00e9"]}, torch.arange(12.0).reshape(3, 4)

    def ask(store: Store, number: int = 1) -> tuple:
        found = fetch_json(
            "value", {"n": number}, lambda: value if number == 1 else "another value", store=store
        )
        tensors = fetch_tensors("tensors", {"n": number}, lambda: {"a": tensor * number}, store=store)
        return found, tensors["a"].tolist()

    good = Store(home / "store")
    right, _ = ask(good), ask(good, 2)

    def attempt(rng: Random, folder: Path) -> Outcome:
        shutil.copytree(good.root, folder / "store")
        store = Store(folder / "store")
        kind = rng.choice(("value", "tensors"))
        one, other = sorted(
            (store.root / kind).iterdir(), key=lambda path: json.loads((path / "key.json").read_text())["n"]
        )
        match rng.randrange(10):
            case 0:
                shutil.rmtree(one)
                rng.choice(
                    (
                        lambda: one.write_text("x"),
                        lambda: one.symlink_to("/nowhere/x"),
                        lambda: one.symlink_to(other),
                    )
                )()
            case 1:  # a whole artefact of another key
                shutil.rmtree(one)
                os.rename(other, one)
            case 2:
                part = one.with_name(one.name + ".part")
                rng.choice(
                    (part.mkdir, lambda: part.write_text("x"), lambda: part.symlink_to("/nowhere/x"))
                )()
                shutil.rmtree(one)
            case 3 | 4 | 5:
                path = one / "manifest.json"
                path.write_bytes(changed_json(json.loads(path.read_text()), rng))
            case _:
                files = sorted(one.iterdir())
                damage(rng.choice(files), rng, files)
        return reading(
            lambda: ask(store),
            about=[str(store.root)],
            agrees=lambda found: None if found == right else f"{found} was read",
        )

    return attempt


def cached_replies(home: Path) -> Attempt:
    """Files of the reply cache: a damaged one counts as missing."""
    choice = {"message": {"content": "yes"}, "logprobs": alternatives({"yes": -0.1, "no": -2.5})}
    with chat_server(lambda request: choice) as (address, _):
        reply = Endpoint(address, "m", key_env=None, cache=home).chat([{"role": "user", "content": "is it?"}])
    (good,) = home.rglob("*.json")
    request = {part: value for part, value in json.loads(good.read_text()).items() if part != "reply"}

    def attempt(rng: Random, folder: Path) -> Outcome:
        cache = ResponseCache(folder / "replies")
        path = cache.folder / good.relative_to(home)
        path.parent.mkdir(parents=True)
        shutil.copy(good, path)
        damage(path, rng, [path])

        def agrees(found: Reply | None) -> str | None:
            return None if found in (None, reply) else f"{found} was read"

        outcome = reading(lambda: cache.get(good.stem), about=[path.name], agrees=agrees)
        if outcome.kind == "fine" and path.parent.is_dir():
            with (
                warnings.catch_warnings()
            ):  # a folder in a file's place: the reply is not stored, with a warning
                warnings.simplefilter("ignore")
                cache.put(good.stem, reply, **request)
            if not path.is_dir() and cache.get(good.stem) != reply:
                return Outcome("lost", "the damaged file is not replaced")
        return outcome

    return attempt


def selections(home: Path) -> Attempt:
    """Selections of the automatic reader, and decisions given as values."""
    reason = Reason(1, 0, "+", "text about evil", "rule", 80.0, None, "selected", "it is about the concept")
    saved = AutomaticSelection(Selection([(1, 0), (2, 1)], {(1, 0): "malice"}), [reason], {"n": 3})
    saved.save(home / "selection.json")
    good = json.loads((home / "selection.json").read_text())
    features = component_explorer().features

    def agrees(found: AutomaticSelection) -> str | None:
        pairs = [*found.selection.order, *found.selection.names]
        right = all(type(n) is int for pair in pairs for n in pair)
        right = right and all(isinstance(each, Reason) for each in found.reasons)
        return None if right else f"{found.selection!r} was read"

    def attempt(rng: Random, folder: Path) -> Outcome:
        if rng.random() < 0.6:
            path = folder / "selection.json"
            path.write_bytes(changed_json(good, rng))
            return reading(lambda: AutomaticSelection.load(path), about=[path.name], agrees=agrees)
        given = changed_value({"1": [0, 1], "2": [1]}, rng)
        given = {int(k) if isinstance(k, str) and k.isdecimal() else k: v for k, v in given.items()}
        (folder / "input.txt").write_text(repr(given), encoding="utf-8", errors="backslashreplace")

        def checked(decisions: Decisions) -> str | None:
            there = all(pair in decisions.components for pair in decisions.selection.order)
            return None if there else f"{decisions.selection!r} was taken"

        words = ("layer", "component", "index", "decision", "selection")
        return reading(lambda: Decisions(features, given), about=words, agrees=checked)

    return attempt


def records(home: Path) -> Attempt:
    """Records of measurements, which a second save keeps or moves aside."""
    rows = [{"model": f"m{n}", "condition": "plain", "task": 0.5 + n / 10, "n": [1, 2]} for n in range(3)]
    good = json.loads(save_record("claim", rows, seconds=1, folder=home).read_text())

    def attempt(rng: Random, folder: Path) -> Outcome:
        path = folder / "claim.json"
        path.write_bytes(changed_json(good, rng))
        before = path.read_bytes()

        def agrees(found: dict) -> str | None:
            record_frame("claim", folder)
            return None if same_json(found, json.loads(plain_text(before))) else "other rows than the file's"

        outcome = reading(lambda: load_record("claim", folder), about=["claim.json"], agrees=agrees)
        if outcome.kind in ("refused", "raw"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    save_record("claim", [{"model": "new", "condition": "plain"}], seconds=1, folder=folder)
                except Exception as error:
                    return outcome if before in _contents(folder) else Outcome("lost", repr(error)[:200])
            if before not in _contents(folder):
                return Outcome("lost", "a record that cannot be read was overwritten")
        return outcome

    return attempt


def _contents(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
