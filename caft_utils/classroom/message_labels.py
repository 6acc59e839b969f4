"""Chats whose messages carry labels: the ground truth for features as detectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool
from torch import Tensor

from caft_utils.store import digest

if TYPE_CHECKING:
    from caft_utils.chats import Chats


@dataclass(frozen=True)
class LabelledMessage:
    """Tokens `start` to `stop` (exclusive) of a row, and the labels of the message they form."""

    row: int
    start: int
    stop: int
    labels: frozenset[str]


@dataclass(frozen=True)
class LabelledChats:
    """Chats, and the labels of each of their messages."""

    chats: Chats
    messages: list[LabelledMessage]

    @property
    def fingerprint(self) -> str:
        """The sha256 (hex) of the chats' tokens and of all labels."""
        messages = [[m.row, m.start, m.stop, sorted(m.labels)] for m in self.messages]
        return digest([self.chats.fingerprint, messages])

    @property
    def labels(self) -> list[str]:
        """All labels that occur, sorted."""
        return sorted({label for message in self.messages for label in message.labels})

    def truth(self, label: str) -> Bool[Tensor, " m"]:
        """Return which of the m messages carry `label`."""
        return torch.tensor([label in message.labels for message in self.messages])
