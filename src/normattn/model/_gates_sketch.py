"""What is remembered of a gate's values while they stream by: sums, extremes, and a sample."""

import zlib
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from ._gates_watch import Range, int8_levels

#: Values of a site that quantiles, the histogram and distinct values are taken from.
SAMPLE = 32_768
BINS = 40
#: Shares of the values that lie below the quantiles.
SHARES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
#: A gate is called saturated outside of these.
LOW, HIGH = 0.05, 0.95
_AT_ONCE = 1 << 22  # values that are worked on together, which bounds the memory


@dataclass(frozen=True)
class Summary:
    """What `Sketch.summary` says, all of it plain numbers."""

    values: int
    sampled: int
    mean: float
    spread: float
    lowest: float
    highest: float
    quantiles: tuple[float, ...]
    below: float
    above: float
    distinct: dict[str, int]
    histogram: tuple[int, ...]


class Sketch:
    """Everything about one gate's values that fits into a fixed amount of memory.

    Mean, spread, extremes and shares are exact. The sample is uniform over all values, without
    replacement: each value draws a random key, and those with the smallest keys stay.
    """

    def __init__(self, site: str, seed: int) -> None:
        self.site, self.seed = site, seed
        self.range: Range | None = None
        self.below = self.above = 0
        self._centre: float | None = None  # near the mean: squares around it lose no digits
        self._squares = 0.0
        self._generator: torch.Generator | None = None
        self._keys = self._sample = torch.empty(0)

    def add(self, values: Tensor) -> None:
        """Take in a gate's values of one batch, of shape ``(B, C, H, W)``, float32 or wider."""
        for part in torch.split(values, max(1, _AT_ONCE // values[0].numel())):
            self._add(part)

    def _add(self, values: Tensor) -> None:
        seen = Range.of(values)
        if not (seen.lowest.isfinite().all() and seen.highest.isfinite().all()):
            raise InputError(
                f"gates: expected finite gate values, got NaN or infinity at {self.site!r}. Go "
                "back to a model from before its training diverged, and check the images."
            )
        self.range = seen.joined(self.range)
        if float(seen.lowest.min()) < LOW:
            self.below += int((values < LOW).sum())
        if float(seen.highest.max()) > HIGH:
            self.above += int((values > HIGH).sum())
        if self._centre is None:
            self._centre = float(values.flatten()[0])
        self._squares += float((values - self._centre).square_().sum(dtype=torch.float64))
        self._draw(values.flatten())

    def _draw(self, values: Tensor) -> None:
        if self._generator is None:
            # Images that somebody drew with the same seed must not be the keys themselves.
            key = zlib.crc32(f"gates {self.seed}".encode())
            self._generator = torch.Generator(values.device).manual_seed(key)
            self._keys, self._sample = values.new_empty(0), values.new_empty(0)
        keys = torch.rand(len(values), generator=self._generator, device=values.device)
        if len(self._keys) == SAMPLE:  # most values are out already
            near = keys < self._keys.max()
            keys, values = keys[near], values[near]
        keys, sample = torch.cat([self._keys, keys]), torch.cat([self._sample, values])
        if len(keys) > SAMPLE:
            keys, places = keys.topk(SAMPLE, largest=False)
            sample = sample[places]
        self._keys, self._sample = keys, sample

    def summary(self) -> Summary | None:
        """Return what was seen; None where nothing was."""
        if self.range is None or self._centre is None:
            return None
        count = self.range.count * len(self.range.total)
        mean = float(self.range.total.sum()) / count
        variance = self._squares / count - (mean - self._centre) ** 2
        lowest, highest = float(self.range.lowest.min()), float(self.range.highest.max())
        if lowest == highest:  # else the rounding of a sum would be called a spread
            mean, variance = lowest, 0.0
        sample = self._sample.float().cpu()
        shares = torch.tensor(SHARES, dtype=torch.float64)
        return Summary(
            values=count,
            sampled=len(sample),
            mean=mean,
            spread=max(variance, 0.0) ** 0.5,
            lowest=lowest,
            highest=highest,
            quantiles=tuple(torch.quantile(sample.double(), shares).tolist()),
            below=self.below / count,
            above=self.above / count,
            distinct=_distinct(sample, self.range.step),
            histogram=_histogram(sample, lowest, highest),
        )


def _distinct(sample: Tensor, step: float) -> dict[str, int]:
    """Return how many different values a type leaves of the sample."""
    return {
        "float32": len(torch.unique(sample)),
        "bfloat16": len(torch.unique(sample.bfloat16())),
        "int8": len(int8_levels(sample, step)),
    }


def _histogram(sample: Tensor, lowest: float, highest: float) -> tuple[int, ...]:
    """Return counts in equal steps from the lowest to the highest; one bin for a constant."""
    if lowest == highest:
        return (len(sample),)
    places = ((sample.double() - lowest) / (highest - lowest) * BINS).long().clamp(0, BINS - 1)
    return tuple(torch.bincount(places, minlength=BINS).tolist())
