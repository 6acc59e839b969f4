"""Claims resume: their store is that of the user, not one of the stores that other tests get."""

from __future__ import annotations

import subprocess
import sys

from helpers.paths import REPOSITORY


def test_claims_keep_the_users_store(tmp_path, monkeypatch):
    monkeypatch.setenv("CAFT_STORE", str(tmp_path / "of the user"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/claims"]
    done = subprocess.run([*command, "-k", "the_users_store"], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
