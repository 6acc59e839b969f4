"""All targets, and how much of the time each gets."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from faults import (
    disks,
    flips,
    folder_readers,
    judges,
    kills,
    pages,
    replies,
    stored,
    text_readers,
    values,
    writers,
)
from faults.running import Target

torch.set_num_threads(1)


@dataclass(frozen=True)
class Entry:
    """A target, its share of the time, and whether it needs what is slow to import."""

    target: Target
    weight: float
    preload: bool = False


TARGETS: dict[str, Entry] = {
    "rows": Entry(text_readers.rows, 1),
    "items": Entry(text_readers.items, 1),
    "published": Entry(text_readers.published, 1),
    "yaml": Entry(text_readers.yaml_files, 1),
    "shipped-yaml": Entry(text_readers.shipped_yaml, 1),
    "settings": Entry(values.settings, 1),
    "widget-messages": Entry(values.widget_messages, 1),
    "directions": Entry(folder_readers.directions, 1),
    "saes": Entry(folder_readers.saes, 1.5, preload=True),
    "foreign-saes": Entry(folder_readers.foreign_saes, 1, preload=True),
    "models": Entry(folder_readers.models, 3),
    "artefacts": Entry(stored.artefacts, 1.5),
    "cached-replies": Entry(stored.cached_replies, 1),
    "selections": Entry(stored.selections, 1),
    "records": Entry(stored.records, 1),
    "hostile-replies": Entry(replies.hostile_replies, 2),
    "judged-replies": Entry(judges.judged_replies, 1),
    "kills": Entry(kills.killed, 8, preload=True),
    "killed-questions": Entry(kills.killed_questions, 1.5),
    "disks": Entry(disks.bad_disks, 6, preload=True),
    "flips": Entry(flips.flips, 6, preload=True),
    "flipped-folders": Entry(flips.flipped_folders, 1, preload=True),
    "writers": Entry(writers.two_writers, 4, preload=True),
    "pages": Entry(pages.injected, 3),
}
