"""Processes of one launcher take the same items. tests/unit/test_store.py has the others."""

from __future__ import annotations

from caft_utils.course.sharing import shared, shared_results
from caft_utils.store import digest


def key(item):
    return {"item": item}


def test_processes_of_a_launcher_get_all_items_in_order(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("caft_utils.store.Store.shared", lambda *_: iter("x"))
    assert list(shared("abc", "toy", key)) == list("abc")
    monkeypatch.delenv("WORLD_SIZE")
    assert list(shared("abc", "toy", key)) == ["x"]


def test_results_come_in_the_order_of_the_items(monkeypatch):
    """Another process takes the first item, so it is made last here."""
    taken = []

    def make(item):
        taken.append(item)
        return 10 * item

    keys = []

    def taken_elsewhere(self, items, kind, key):
        keys.extend(digest(key(item)) for item in items)
        return iter([2, 3, 1])

    monkeypatch.setattr("caft_utils.store.Store.shared", taken_elsewhere)
    assert list(shared_results([1, 2, 3], "toy", {}, make).items()) == [(1, 10), (2, 20), (3, 30)]
    assert taken == [2, 3, 1] and len(set(keys)) == 3
