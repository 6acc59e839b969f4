"""The widget: messages of the browser change the same decisions, and the view follows."""

from __future__ import annotations

import pytest
from helpers.explorers import EVIL, component_explorer

from caft_utils.directions import Directions


@pytest.fixture
def view():
    return component_explorer()


def act(view, **message):
    """Send an action as the browser does, and return what is displayed afterwards."""
    view.widget._handle_msg({"content": {"data": {"method": "custom", "content": message}}, "buffers": []})
    return view.widget.view


def test_the_widget_decides_the_same(view, tmp_path):
    view.select(1, 1)
    assert view.widget is view.widget
    seen = view.widget.view
    assert (seen["at"], seen["state"], seen["name"]) == (0, "", "")
    assert [tile["state"] for tile in seen["tiles"]] == ["", "ablate", "", ""]
    seen = act(view, do="decide", what="ablate")
    assert view.selection == {1: [0, 1]} and seen["state"] == "ablate" and "to ablate" in seen["card"]
    seen = act(view, do="name", at=0, name=EVIL)
    assert view.names == {(1, 0): EVIL} and seen["name"] == EVIL and EVIL in seen["tiles"][0]["title"]
    seen = act(view, do="step", by=1)
    assert seen["at"] == 1 and seen["name"] == "" and "component 1" in seen["card"]
    act(view, do="decide", what="ablate")  # again: undecided
    assert view.selection == {1: [0]}
    seen = act(view, do="decide", what="discard")
    assert view.discarded == {1: [1]} and seen["progress"] == "2 of 4 read \u00b7 1 to ablate, 1 discarded"
    act(view, do="step", by=-1)
    assert act(view, do="step", by=-1)["at"] == 3  # round to the last
    assert act(view, do="show", at=0)["name"] == EVIL
    assert view.selection == {1: [0]} and view.names == {(1, 0): EVIL}  # looking decides nothing
    act(view, do="name", at=2, name="left behind")  # the reader had gone on before the name arrived
    assert view.names[2, 0] == "left behind" and view.widget.view["at"] == 0


def test_the_widget_exports_and_says_where(view, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "Nothing was written: nothing is selected yet" in act(view, do="export")["message"]
    view.select(2, 0)
    assert view.widget.view["state"] == "" and view.widget.view["tiles"][2]["state"] == "ablate"
    message = act(view, do="export")["message"]
    assert str(tmp_path / "selection") in message
    assert Directions.load("selection").ranks == {2: 1}
    assert act(view, do="step", by=1)["message"] == ""
    (tmp_path / "file").write_text("")
    view.folder = tmp_path / "file" / "in it"
    assert "Nothing was written: " in act(view, do="export")["message"]


@pytest.mark.parametrize("at", [-1, 4, 10**9, True, 1.0, "1", None])
@pytest.mark.parametrize("do", ["show", "name"])
def test_a_message_about_a_direction_that_is_not_there_changes_nothing(view, do, at):
    act(view, do="show", at=2)
    for handle in view.widget._msg_callbacks.callbacks:  # ipywidgets would only log an error
        handle(view.widget, {"do": do, "at": at, "name": "x"}, [])
    assert type(view.widget.view["at"]) is int
    assert (view.widget.view["at"], view.names) == (2, {}) or at is True
