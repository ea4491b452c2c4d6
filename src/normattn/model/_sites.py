"""The dry run: where attention would go."""

from collections.abc import Iterable, Sequence

from torch import nn

from ..errors import ConfigError
from ._discovery import trace
from ._support import refuse_unsupported
from ._survey import Site, Survey
from .hosts import host_spec

InputSize = int | tuple[int, int]


def find_sites(
    host: nn.Module,
    sites: str | Iterable[str] = "blocks",
    input_size: InputSize | None = None,
) -> tuple[Site, ...]:
    """Return the sites that `graft` would use, found by a dry run that changes nothing.

    Args:
        host: the model.
        sites: "blocks", "stages" or patterns, as for `graft`.
        input_size: as for `graft`.

    Raises:
        ConfigError: a pattern matches nothing.
        UnsupportedModel: the host has no such sites, or they cannot be gated.

    Example:
        >>> from normattn.model.hosts import host
        >>> find_sites(host("resnet20", 10), "stages")[0].name
        'layer1'
    """
    refuse_unsupported(host)
    survey = Survey(host, trace(host, _image_size(host, input_size)))
    if sites == "blocks":
        return survey.branches()
    if sites == "stages":
        return survey.stages()
    if not isinstance(sites, Iterable):
        raise ConfigError(
            "graft: expected sites to be 'blocks', 'stages' or patterns of module names, got "
            f"{sites!r}."
        )
    return survey.matching([sites] if isinstance(sites, str) else list(sites))


def _image_size(host: nn.Module, given: InputSize | None) -> tuple[int, int]:
    if given is None:
        spec = host_spec(host)
        if spec is not None and spec.stem == "cifar":
            return (32, 32)
        config = getattr(host, "pretrained_cfg", None)  # timm's
        known = config.get("input_size") if isinstance(config, dict) else None
        _, height, width = known or (3, 224, 224)
        return (height, width)
    size = tuple(given) if isinstance(given, Sequence) else (given, given)
    if len(size) != 2 or not all(type(n) is int and n >= 1 for n in size):
        raise ConfigError(
            f"graft: expected input_size to be a side or (H, W) in pixels, got {given!r}."
        )
    return (size[0], size[1])
