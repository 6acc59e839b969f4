"""The committed selection of components."""

from __future__ import annotations

import pytest

from caft_utils.course.annotations import annotation
from caft_utils.models import preset


@pytest.mark.parametrize("model", ["classroom-qwen", "classroom-mistral"])
def test_selected_components_were_read_and_named(model):
    read = annotation(model)
    assert read.selection and set(read.selection) <= set(preset(model).layers)
    assert all((layer, i) in read.names for layer, ids in read.selection.items() for i in ids)
    assert read.ticks == read.selection  # the name in recorded notebooks


def test_the_short_name_of_the_default_model_works():
    assert annotation("classroom") == annotation("classroom-qwen")


def test_a_model_that_nobody_read_is_refused():
    with pytest.raises(KeyError, match="classroom-qwen"):
        annotation("other")


@pytest.mark.parametrize(
    "text, field",
    [
        ("", "fields"),
        ("m: [1]", "m must hold fields"),
        ("m: {ticks: {1: [0]}}", "missing fields names"),
        ("m: {ticks: {1: [x]}, names: {}}", "ticks, layer 1, entry 0"),
        ("m: {ticks: {one: [0]}, names: {}}", "ticks: a layer"),
        ("m: {ticks: {1: 0}, names: {}}", "ticks, layer 1 must be a list"),
        ("m: {ticks: {1: [-3]}, names: {}}", "ticks, layer 1, entry 0"),
        ("m: {ticks: {}, names: {1: [a]}}", "names, layer 1"),
        ("m: {ticks: {}, names: {1: {0: [5]}}}", "names, layer 1, component 0"),
        ("m: {ticks: {}, names: {1: {0: a, 0: b}}}", "given twice"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path, text, field):
    file = tmp_path / "notes.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=f"notes.yaml.*{field}"):
        annotation("m", file)
