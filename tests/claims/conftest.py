"""Claims measure for minutes and write what they find to data/results; see caft_utils/course/records.py."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
