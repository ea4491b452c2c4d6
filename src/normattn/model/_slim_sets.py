"""Coupled channels as sets of numbers: what is connected, and which sets are alike."""

from collections import defaultdict

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Indices = npt.NDArray[np.int64]
Channels = tuple[tuple[int, ...], ...]

WIDEST = 1 << 24  # more indices than any dimension has


def connected(elements: Indices, pairs: list[tuple[Indices, Indices]]) -> Indices:
    """Return for each element the number of the set of coupled elements that it is in."""
    empty = np.empty(0, np.int64)
    sources = np.searchsorted(elements, np.concatenate([empty, *(s for s, _ in pairs)]))
    targets = np.searchsorted(elements, np.concatenate([empty, *(t for _, t in pairs)]))
    size = len(elements)
    matrix = coo_array((np.ones(len(sources), np.int8), (sources, targets)), shape=(size, size))
    _, labels = connected_components(matrix, directed=False)
    return np.asarray(labels, np.int64)


def alike(labels: Indices, numbers: Indices) -> tuple[Indices, Indices]:
    """Return which sets of elements meet the same nodes, and each one's rank among those."""
    met = np.unique(np.stack([labels, numbers]), axis=1)  # each node once, by set
    starts = np.flatnonzero(np.diff(met[0], prepend=-1))
    kinds: dict[bytes, int] = {}
    alike = [kinds.setdefault(part.tobytes(), len(kinds)) for part in np.split(met[1], starts[1:])]
    seen: dict[int, int] = defaultdict(int)
    rank = []
    for kind in alike:
        rank.append(seen[kind])
        seen[kind] += 1
    return np.array(alike, np.int64), np.array(rank, np.int64)


def by_rank(ranks: Indices, indices: Indices) -> Channels:
    """Return the indices of each channel, by its rank; none is without."""
    order = np.argsort(ranks, kind="stable")
    starts = np.flatnonzero(np.diff(ranks[order], prepend=-1))
    if len(starts) == len(indices):
        return tuple((i,) for i in indices[order].tolist())
    return tuple(tuple(part.tolist()) for part in np.split(indices[order], starts[1:]))


def appended(channels: Channels, first: int) -> Channels:
    """Return which of the zeros that a shortcut appends belong to each channel."""
    return tuple(tuple(i - first for i in each if i >= first) for each in channels)
