"""Randomness as a function of what it is for, not of what was drawn before it.

Order = f(seed, epoch); augmentation = f(seed, epoch, sample); dropout = f(seed, step, rank);
initialisation of host and of mechanism have keys of their own. So two mechanisms with one seed see
the same host weights, batches and crops, whatever the number of workers or ranks, and a killed run
resumes to the same bit from (epoch, batch) alone.
"""

import contextlib
import hashlib
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def key(*parts: int | str) -> int:
    """Return a 63-bit key for ``parts``; equal parts give equal keys on every machine.

    Example:
        >>> key(0, "order", 3) == key(0, "order", 3) != key(0, "order", 4)
        True
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@contextlib.contextmanager
def seeded(*parts: int | str) -> Iterator[None]:
    """Draw torch's random numbers from ``key(*parts)`` inside, and leave no trace outside."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(*parts))
        yield


def permutation(n: int, *parts: int | str) -> Tensor:
    """Return a permutation of ``range(n)``, int64 of shape ``(n,)``, for ``parts``."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(key(*parts)))


def uniforms(indices: Tensor, draws: int, *parts: int | str) -> NDArray[np.float64]:
    """Return ``draws`` uniform numbers in [0, 1) for each sample index, shape ``(N, draws)``.

    Row i depends on ``parts`` and ``indices[i]`` alone. The generator is SplitMix64 (Steele, Lea,
    Flood, OOPSLA 2014) used as a counter, which numpy evaluates for a whole batch at once.
    """
    counters = (indices.numpy()[:, None] * draws + np.arange(1, draws + 1)).astype(np.uint64)
    state = np.uint64(key(*parts)) + counters * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits = (state ^ (state >> np.uint64(31))) >> np.uint64(11)
    return bits.astype(np.float64) * 2.0**-53
