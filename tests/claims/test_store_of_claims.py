"""Claims keep what they measure in the user's store, so that they resume. `make test` runs this file too."""

from __future__ import annotations

import os
from pathlib import Path

from caft_utils.store import default_store


def test_the_users_store_is_kept(tmp_path):
    own = Path(os.environ.get("CAFT_STORE") or Path.home() / ".cache" / "caft_utils")
    own = own.expanduser().absolute()
    assert default_store().root == own and tmp_path.parent not in own.parents
