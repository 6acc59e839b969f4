"""Where Chromium is on this machine, and how it starts without a screen and without calling home."""

from __future__ import annotations

import os
import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]


def browser_path() -> str | None:
    """Return the path in CAFT_BROWSER or of the first browser found, or None."""
    return os.environ.get("CAFT_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)
