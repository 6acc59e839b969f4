"""The committed selection of components."""

from __future__ import annotations

import pytest

from caft_utils.course.annotations import annotation
from caft_utils.models import preset


@pytest.mark.parametrize("model", ["classroom-qwen", "classroom-mistral"])
def test_selected_components_were_read_and_named(model):
    read = annotation(model)
    assert read.ticks and set(read.ticks) <= set(preset(model).layers)
    assert all((layer, i) in read.names for layer, ids in read.ticks.items() for i in ids)


def test_the_short_name_of_the_default_model_works():
    assert annotation("classroom") == annotation("classroom-qwen")


def test_a_model_that_nobody_read_is_refused():
    with pytest.raises(KeyError, match="classroom-qwen"):
        annotation("other")
