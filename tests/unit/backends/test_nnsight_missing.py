"""Without NNsight, or with an earlier generation, the error says what to install."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from caft_utils.backends.nnsight_models import TESTED, import_nnsight, trace_model


def test_it_says_how_to_install_it(model, tokenizer, monkeypatch):
    monkeypatch.setitem(sys.modules, "nnsight", None)  # as for a module that is not installed
    with pytest.raises(ImportError, match=f"pip install nnsight=={TESTED}"):
        trace_model(model, tokenizer)


def test_an_earlier_generation_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "nnsight", SimpleNamespace(__version__="0.5.15"))
    with pytest.raises(ImportError, match="0.5.15 has no TransformersModel"):
        import_nnsight()
