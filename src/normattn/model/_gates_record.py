"""What is known of a model's gates over real images, as plain numbers."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ._gates_sketch import SHARES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT = 1
#: A gate whose 1-99 % range is narrower than this share of 0 to 1 is called nearly constant.
NARROW = 0.1


@dataclass(frozen=True)
class GateSite:
    """One gate over real images.

    Of a gate of two parts (NAM) there are three: the product, which is what multiplies x, and each
    part, which lies around ½ by itself.

    Args:
        site: the dotted name of the place.
        part: "" for the whole gate; else which part of it.
        mechanism: its label.
        channels: C.
        values: how many values there were.
        sampled: how many of them, drawn by chance, quantiles, distinct values and histogram are of.
        mean: of all values.
        spread: their standard deviation.
        lowest: the smallest value.
        highest: the largest.
        quantiles: below which 1, 5, 25, 50, 75, 95 and 99 % of the values lie.
        below: the share of the values under 0.05.
        above: the share of the values over 0.95.
        distinct: how many different values are left in "float32", "bfloat16" and "int8". For int8
            the range, stretched to hold zero, has 255 steps, as in the runtimes.
        histogram: counts in equal steps from the lowest to the highest value.
        scale: the scale factors γ (or λ), by channel (or pixel); () where there are none.
        importance: what the gate is weighted by, likewise.
    """

    site: str
    part: str
    mechanism: str
    channels: int
    values: int
    sampled: int
    mean: float
    spread: float
    lowest: float
    highest: float
    quantiles: tuple[float, ...]
    below: float
    above: float
    distinct: Mapping[str, int]
    histogram: tuple[int, ...]
    scale: tuple[float, ...] = ()
    importance: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        """The site, and the part of the gate if it is one."""
        return f"{self.site} ({self.part})" if self.part else self.site

    @property
    def low(self) -> float:
        """The value that 1 % of the values lie below."""
        return self.quantiles[0]

    @property
    def high(self) -> float:
        """The value that 99 % of the values lie below."""
        return self.quantiles[-1]

    @property
    def width(self) -> float:
        """How far apart `low` and `high` are; a gate between 0 and 1 could have 1."""
        return self.high - self.low


@dataclass(frozen=True)
class Gates:
    """What `gates` found; ``str`` is `table`.

    Args:
        images: how many images the model saw.
        sites: a record a gate and part, in the order of the model.
        left_out: sites that nothing could be said of, each with the reason.
    """

    images: int
    sites: tuple[GateSite, ...]
    left_out: tuple[tuple[str, str], ...] = ()

    @property
    def mechanism(self) -> str:
        """The labels of all mechanisms in the model."""
        return ", ".join(dict.fromkeys(site.mechanism for site in self.sites))

    @property
    def summary(self) -> tuple[str, ...]:
        """What the gates do, in sentences without a word of theory."""
        from ._gates_shown import sentences

        return sentences(self)

    def table(self) -> str:
        """Return the numbers as text, a line a gate, and below them the `summary`."""
        from ._gates_shown import table

        return table(self)

    def plot(self) -> "Figure":
        """Return a matplotlib figure: each gate's range on the scale from 0 to 1, and enlarged."""
        from ._gates_shown import plot

        return plot(self)

    def to_json(self) -> dict[str, Any]:
        """Return plain containers, with the version of the format."""
        sites = [{**asdict(site), "distinct": dict(site.distinct)} for site in self.sites]
        return {
            "format": FORMAT,
            "mechanism": self.mechanism,
            "images": self.images,
            "shares": list(SHARES),
            "sites": sites,
            "left_out": [list(entry) for entry in self.left_out],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Gates":
        """Return what `to_json` was called on.

        Raises:
            ConfigError: the content is something else, or of a later version.
        """
        try:
            if content["format"] != FORMAT or content["shares"] != list(SHARES):
                raise ValueError(f"format {content['format']!r}")
            sites = tuple(map(_read, content["sites"]))
            left_out = tuple((str(site), str(reason)) for site, reason in content["left_out"])
            return cls(content["images"], sites, left_out)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(
                f"gates: expected what to_json gave, of format {FORMAT}, got something else "
                f"({error}). Measure the gates again."
            ) from error

    def __str__(self) -> str:
        return self.table()


def _read(content: Mapping[str, Any]) -> GateSite:
    frozen: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
    site = GateSite(**frozen)
    figures = (site.mean, site.spread, site.lowest, site.highest, site.below, site.above)
    lists = (*site.quantiles, *site.histogram, *site.scale, *site.importance)
    numbers = (*figures, *lists, *site.distinct.values(), site.values, site.sampled)
    if len(site.quantiles) != len(SHARES) or not all(isinstance(n, int | float) for n in numbers):
        raise TypeError(f"no numbers at {site.site!r:.100}")
    return site
