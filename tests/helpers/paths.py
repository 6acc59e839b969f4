"""Folders that tests look into."""

from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
