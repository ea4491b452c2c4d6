"""Mechanisms by name, and a mechanism with its options as one line of text."""

import ast
import inspect
import keyword
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigError, unknown
from ._gate import Gate
from .bam import BAM
from .cbam import CBAM
from .controls import Half, NoAttention
from .ean import EAN
from .nam import NAM, NAMChannel, NAMSpatial
from .se import SE
from .triplet import Triplet

MECHANISMS: dict[str, type[Gate]] = {
    "none": NoAttention,
    "half": Half,
    "nam-channel": NAMChannel,
    "nam-spatial": NAMSpatial,
    "nam": NAM,
    "ean": EAN,
    "se": SE,
    "bam": BAM,
    "cbam": CBAM,
    "triplet": Triplet,
}

# What a site decides, not the person who chooses a mechanism.
_PLACEMENT = ("size", "device", "dtype")


def available() -> list[str]:
    """Return the names of all mechanisms.

    Example:
        >>> available()[:3]
        ['none', 'half', 'nam-channel']
    """
    return list(MECHANISMS)


def create(name: str, channels: int, **options: Any) -> Gate:
    """Build a mechanism by name.

    Args:
        name: one of `available()`.
        channels: C, the number of channels of the maps that it will gate.
        options: the mechanism's own options, and ``device``, ``dtype`` and, where it needs one,
            ``size``.

    Raises:
        ConfigError: the name or an option is unknown, or an option is out of its range.

    Example:
        >>> create("ean", 64, groups=8)
        EAN(channels=64, groups=8, scale_norm=l2)
    """
    cls = _find(name)
    _check_names(name, options, known=_keywords(cls))
    return cls(channels, **options)


@dataclass(frozen=True)
class Mechanism:
    """A mechanism's name and options: what a comparison varies.

    Args:
        name: one of `available()`.
        options: the mechanism's options; their values are numbers, words, True, False or None.

    Raises:
        ConfigError: the name or an option is unknown. (Values are checked where the module is
            built, since some depend on the number of channels.)

    Example:
        >>> Mechanism.parse("ean( groups = 8 )").label
        'ean(groups=8)'
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        cls = _find(self.name)
        _check_names(
            self.name, self.options, known=[k for k in _keywords(cls) if k not in _PLACEMENT]
        )
        for option, value in self.options.items():
            finite = not isinstance(value, float) or math.isfinite(value)
            if not (isinstance(value, bool | int | float | str | None) and finite):
                raise ConfigError(
                    f"{self.name}: expected {option} to be a finite number, a word, True, False or "
                    f"None, got {value!r}."
                )
        object.__setattr__(self, "options", dict(sorted(self.options.items())))

    @classmethod
    def parse(cls, text: str) -> "Mechanism":
        """Read a mechanism from text such as ``se``, ``ean(groups=8)`` or ``nam(weighting=mean)``.

        Values are Python literals; a plain word stands for itself.

        Raises:
            ConfigError: the text has another form, or names something unknown.
        """
        match = re.fullmatch(r"\s*([\w-]+)\s*(?:\((.*)\)\s*)?", text, flags=re.DOTALL)
        if match is None:
            raise ConfigError(_malformed(text))
        return cls(match[1], _parse_options(text, match[2] or ""))

    @property
    def label(self) -> str:
        """The canonical text, from which `parse` gives an equal mechanism."""
        options = ",".join(f"{key}={_write(value)}" for key, value in self.options.items())
        return f"{self.name}({options})" if options else self.name

    def __str__(self) -> str:
        return self.label


def parse_list(text: str) -> list[Mechanism]:
    """Read mechanisms separated by commas, such as ``none,half,ean(groups=8)``.

    Raises:
        ConfigError: an entry is malformed, unknown, or given twice.

    Example:
        >>> [mechanism.label for mechanism in parse_list("none, ean(groups=8, scale_norm=l1)")]
        ['none', 'ean(groups=8,scale_norm=l1)']
    """
    # A comma separates entries where no closing bracket lies between it and the next opening one.
    mechanisms = [Mechanism.parse(entry) for entry in re.split(r",(?![^(]*\))", text)]
    labels = [mechanism.label for mechanism in mechanisms]
    for label in labels:
        if labels.count(label) > 1:
            raise ConfigError(f"attention: expected each mechanism once, got {label!r} twice.")
    return mechanisms


def _find(name: str) -> type[Gate]:
    if name not in MECHANISMS:
        raise ConfigError(unknown("attention", "mechanism", str(name), MECHANISMS))
    return MECHANISMS[name]


def _keywords(cls: type[Gate]) -> list[str]:
    parameters = inspect.signature(cls).parameters.values()
    return [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]


def _check_names(mechanism: str, options: Mapping[str, Any], known: list[str]) -> None:
    for option in options:
        if not known:
            raise ConfigError(f"{mechanism}: expected no options, got {option!r}. Leave it out.")
        if option not in known:
            raise ConfigError(unknown(mechanism, "option", option, known))


def _parse_options(text: str, arguments: str) -> dict[str, Any]:
    """Read ``key=value, ...`` as the arguments of a call, whose grammar is Python's own."""
    try:
        call = ast.parse(f"f({arguments})", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise ValueError
        options: dict[str, Any] = {}
        for argument in call.keywords:
            if argument.arg is None or argument.arg in options:
                raise ValueError
            node = argument.value
            options[argument.arg] = (
                node.id if isinstance(node, ast.Name) else ast.literal_eval(node)
            )
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(_malformed(text)) from error
    return options


def _malformed(text: str) -> str:
    return (
        f"attention: expected a mechanism such as se or ean(groups=8), got {text!r}. "
        "Write name, or name(option=value, ...)."
    )


def _write(value: object) -> str:
    """Return ``value`` as `Mechanism.parse` reads it: a word bare, anything else as a literal."""
    bare = isinstance(value, str) and value.isidentifier() and not keyword.iskeyword(value)
    return str(value) if bare else repr(value)
