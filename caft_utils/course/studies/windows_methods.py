"""Six ways to find extreme windows by storing first and searching afterwards.

One streaming pass is compared with these methods:

- all projections in memory, one matrix row per direction: the fastest, at 64 GB per million tokens;
- all projections on disk, one file per 512 directions, searched one file at a time;
- all projections in a tensor [rows, longest row, directions], as in the script published with CAFT
  (cadentj/caft, emergent_misalignment/finding_features/max_proj_examples.py);
- a list of locations and values sorted by direction, as tools for sparse latents keep it (EleutherAI/delphi,
  latents/cache.py and loader.py). It suits latents that seldom fire and does not suit projections;
- hidden states alone, projected again on one direction at a time;
- hidden states alone, projected again on 64 directions at a time.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from pathlib import Path

import numpy as np
import torch

from caft_utils.interpret.examples.histogram import BINS
from caft_utils.interpret.examples.streaming import shared_prefix_lengths, stream_row_blocks
from caft_utils.residual import stream_activations

LAYER, DIRECTIONS, WINDOWS, WIDTH = 3, 16_384, 10, 12  # WINDOWS per side of a direction, WIDTH tokens each


class Search:
    """The search over one direction's values at all tokens, once everything is stored."""

    def __init__(self, chats, row, position):
        new = shared_prefix_lengths(chats).numpy()
        self.row_start = np.flatnonzero(position == 0)
        self.row_stop = np.append(self.row_start[1:], len(row))
        self.row_number = row[self.row_start]
        self.first_new = self.row_start + np.maximum(1, new[self.row_number])
        self.counted_tokens = torch.from_numpy(np.flatnonzero(position > 0))
        self.rows_with_new = np.flatnonzero(self.first_new < self.row_stop)
        edges = np.stack([self.first_new[self.rows_with_new], self.row_stop[self.rows_with_new]], 1).ravel()
        self.edges = edges[:-1] if edges[-1] == len(row) else edges
        self.rows_found, self.positions = (
            np.zeros((DIRECTIONS, 2, WINDOWS), dtype=np.int64) for _ in range(2)
        )
        self.values = np.zeros((DIRECTIONS, 2, WINDOWS, WIDTH), dtype=np.float32)
        self.counts = np.zeros((DIRECTIONS, BINS), dtype=np.int64)

    def add(self, i: int, column: np.ndarray) -> None:
        self.count(i, column)
        for side, reduce in enumerate((np.maximum, np.minimum)):
            extremes = reduce.reduceat(column, self.edges)[::2]
            self.rank(i, side, column, extremes if side == 0 else -extremes)

    def count(self, i: int, column: np.ndarray) -> None:
        tokens = torch.from_numpy(column)[self.counted_tokens]
        low, high = (float(x) for x in tokens.aminmax())
        edge = 2.0 ** np.floor(np.log2(max(high, -low)) + 1)
        bins = (tokens * (BINS / 2 / edge)).floor_().int() + BINS // 2
        self.counts[i] = bins.bincount(minlength=BINS).numpy()

    def rank(self, i: int, side: int, column: np.ndarray, score: np.ndarray) -> None:
        """Keep one window of each of the WINDOWS rows with the highest score; ties go to the earlier row."""
        best = np.flatnonzero(score >= np.partition(score, -WINDOWS)[-WINDOWS])
        numbers = self.row_number[self.rows_with_new[best]]
        best = self.rows_with_new[best[np.lexsort((numbers, -score[best]))[:WINDOWS]]]
        for rank, r in enumerate(best):
            part = column[self.first_new[r] : self.row_stop[r]]
            peak = self.first_new[r] + (part.argmax() if side == 0 else part.argmin())
            low = max(self.row_start[r], min(peak - WIDTH // 2, self.row_stop[r] - WIDTH))
            window = column[low : min(low + WIDTH, self.row_stop[r])]
            self.rows_found[i, side, rank] = self.row_number[r]
            self.positions[i, side, rank] = peak - self.row_start[r]
            self.values[i, side, rank, : len(window)] = window

    @property
    def found(self):
        return self.rows_found, self.positions, self.values, self.counts


def blocks(model, chats, frame):
    """Yield (first token, columns, values), computed by the same products as the streaming pass."""
    first = 0
    for part in stream_row_blocks(model, chats, frame, batch_size=32, progress=False):
        for columns, values in part.values(frame):
            yield first, columns, values
        first += len(part.hidden)


def search_of(chats) -> Search:
    """Return a search over the tokens in the order in which `blocks` yields them."""
    row, position = [], []
    for batch in chats.batches(32):
        r, p = batch.attention_mask.bool().nonzero(as_tuple=True)
        row.append(torch.tensor(batch.index)[r])
        position.append(p)
    return Search(chats, torch.cat(row).numpy(), torch.cat(position).numpy())


def in_memory(model, chats, frame):
    """Store all projections in memory, one row of a matrix per direction."""
    search = search_of(chats)
    stored = np.zeros((DIRECTIONS, search.row_stop[-1]), dtype=np.float32)
    for first, columns, values in blocks(model, chats, frame):
        stored[columns, first : first + len(values)] = values.T.numpy()
    for i in range(DIRECTIONS):
        search.add(i, stored[i])
    return search.found


def on_disk(model, chats, frame, group: int = 512):
    """Store in files, flushed to disk and dropped from the page cache, which is too small at full size."""
    search = search_of(chats)
    with tempfile.TemporaryDirectory() as folder:
        files = [
            (Path(folder) / str(first)).open("w+b", buffering=0) for first in range(0, DIRECTIONS, group)
        ]
        for part in stream_row_blocks(model, chats, frame, batch_size=32, progress=False):
            values = torch.cat([values for _, values in part.values(frame)], 1)
            for file, some in zip(files, values.split(group, 1), strict=True):
                file.write(some.contiguous().numpy())
        for file in files:
            os.fsync(file.fileno())
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        for number, file in enumerate(files):
            file.seek(0)
            stored = np.ascontiguousarray(np.fromfile(file, dtype=np.float32).reshape(-1, group).T)
            for i, column in enumerate(stored):
                search.add(number * group + i, column)
            file.close()
    return search.found


def padded(model, chats, frame):
    """Store [rows, longest row, directions] in memory and take maxima over the second axis."""
    search = search_of(chats)
    rows, length = len(search.row_start), search.row_stop - search.row_start
    stored = []
    for part in stream_row_blocks(model, chats, frame, batch_size=32, progress=False):
        values = torch.cat([values for _, values in part.values(frame)], 1)
        stored.append(torch.zeros(len(part.row), length.max(), DIRECTIONS))
        for r, (a, b) in enumerate(zip(part.start.tolist(), part.stop.tolist())):
            stored[-1][r, : b - a] = values[a:b]
    stored = torch.cat(stored)
    where = (
        np.repeat(np.arange(rows), length),
        np.arange(search.row_stop[-1]) - np.repeat(search.row_start, length),
    )
    beside = torch.ones(rows, length.max(), dtype=torch.bool)
    for r in range(rows):
        beside[r, search.first_new[r] - search.row_start[r] : length[r]] = False
    kept = stored[beside]
    extremes = []
    for sign in (1, -1):
        stored[beside] = -sign * torch.inf
        by_direction = stored.permute(2, 0, 1)
        score = (by_direction.max(-1) if sign > 0 else by_direction.min(-1)).values
        extremes.append((sign * score).numpy()[:, search.rows_with_new])
    stored[beside] = kept
    for i in range(DIRECTIONS):
        column = stored[..., i].numpy()[where]
        search.count(i, column)
        for side in (0, 1):
            search.rank(i, side, column, extremes[side][i])
    return search.found


def listed(model, chats, frame, splits: int = 5):
    """Store (token, direction) pairs and values; sort each fifth of the directions by direction."""
    search = search_of(chats)
    locations, stored = [], []
    for first, columns, values in blocks(model, chats, frame):
        found = values.abs() > 0
        locations.append(found.nonzero() + torch.tensor([first, columns.start]))
        stored.append(values[found])
    locations, stored = torch.cat(locations), torch.cat(stored)
    edges = torch.linspace(0, DIRECTIONS, splits + 1).long().tolist()
    for low, high in itertools.pairwise(edges):
        mask = (locations[:, 1] >= low) & (locations[:, 1] < high)
        some, values = locations[mask], stored[mask]
        order = some[:, 1].argsort(stable=True)
        some, values = some[order], values[order]
        directions, counts = some[:, 1].unique_consecutive(return_counts=True)
        pieces = zip(directions.tolist(), some[:, 0].split(counts.tolist()), values.split(counts.tolist()))
        for i, tokens, part in pieces:
            column = np.zeros(search.row_stop[-1], dtype=np.float32)
            column[tokens.numpy()] = part.numpy()
            search.add(i, column)
    return search.found


def hidden_states(model, chats, frame, step: int):
    """Store hidden states, then project them on `step` directions at a time and search."""
    search = search_of(chats)
    hidden = torch.cat([batch.hidden[LAYER] for batch in stream_activations(model, chats, [LAYER])])
    for i in range(0, DIRECTIONS, step):
        block = (frame.rows[i : i + step] @ hidden.T).numpy()
        for j in range(len(block)):
            search.add(i + j, block[j])
    return search.found


def hidden_one_by_one(model, chats, frame):
    """Store hidden states and project them on one direction at a time."""
    return hidden_states(model, chats, frame, 1)


def hidden_by_64(model, chats, frame):
    """Store hidden states and project them on 64 directions at a time."""
    return hidden_states(model, chats, frame, 64)
