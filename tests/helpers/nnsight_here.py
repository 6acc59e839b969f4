"""NNsight for the tests that need it, without the changes that it makes to every Python object."""

from __future__ import annotations

from importlib.util import find_spec

import pytest


@pytest.fixture(scope="session")
def nnsight(tmp_path_factory):
    """The package, imported here and not while tests are collected, because it changes torch."""
    from caft_utils.backends.nnsight_models import TESTED

    if find_spec("nnsight") is None:
        pytest.skip(f"nnsight is optional and not installed here: pip install nnsight=={TESTED}")
    with pytest.MonkeyPatch.context() as patch:
        config = tmp_path_factory.mktemp("nnsight") / "config.yaml"
        config.write_text("APP: {PYMOUNT: false, REMOTE_LOGGING: false}\n")  # no `.save` on every object
        patch.setenv("NNSIGHT_CONFIG", str(config))
        patch.delenv("NDIF_API_KEY", raising=False)
        import nnsight

    return nnsight
