"""Processes of one launcher take the same items. tests/unit/test_store.py has the others."""

from __future__ import annotations

from caft_utils.course.sharing import shared


def key(item):
    return {"item": item}


def test_processes_of_a_launcher_get_all_items_in_order(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("caft_utils.store.Store.shared", lambda *_: iter("x"))
    assert list(shared("abc", "toy", key)) == list("abc")
    monkeypatch.delenv("WORLD_SIZE")
    assert list(shared("abc", "toy", key)) == ["x"]
