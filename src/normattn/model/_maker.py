"""Attention modules for sites, whichever way the mechanism was given."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..attention import MECHANISMS, Mechanism, create
from ..errors import ConfigError, InputError, UnsupportedModel
from ._survey import Site


@dataclass(frozen=True)
class Maker:
    """Builds the modules of one mechanism.

    Args:
        name: in the registry, or the qualified name of a callable.
        options: the mechanism's options, the same at every site.
        default_sites: where its paper puts it.
    """

    name: str
    options: Mapping[str, Any]
    default_sites: str
    _callable: Callable[..., nn.Module] | None = None

    def build(self, site: Site, like: Tensor) -> nn.Module:
        """Return a new module for a site, with the device and type of ``like``."""
        try:
            if self._callable is not None:
                return self._build_foreign(self._callable, site, like)
            options = dict(self.options)
            if MECHANISMS[self.name].needs_size:
                options["size"] = site.size
            return create(self.name, site.channels, **options, device=like.device, dtype=like.dtype)
        except InputError as error:
            raise type(error)(f"{error} [at site {site.name!r}]") from error

    def _build_foreign(
        self, function: Callable[..., nn.Module], site: Site, like: Tensor
    ) -> nn.Module:
        options = dict(self.options)
        if getattr(function, "needs_size", False):
            options["size"] = site.size
        module = function(site.channels, **options)
        if not isinstance(module, nn.Module):
            raise ConfigError(
                f"graft: expected {self.name} to return an nn.Module, got {type(module).__name__}."
            )
        module.to(device=like.device, dtype=like.dtype)
        x = _noise(site, like)
        y = _respond(module, x)
        if not isinstance(y, Tensor) or y.shape != x.shape:
            raise ConfigError(
                f"graft: expected {self.name} to keep the shape {tuple(x.shape)}, got "
                f"{tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__}."
            )
        return module


def maker(
    mechanism: str | Mechanism | Callable[..., nn.Module], options: Mapping[str, Any]
) -> Maker:
    """Return the maker of a mechanism: a name, a `Mechanism`, or a callable."""
    if isinstance(mechanism, str):
        mechanism = Mechanism(mechanism)
    if isinstance(mechanism, Mechanism):
        given = Mechanism(mechanism.name, {**mechanism.options, **options})
        return Maker(given.name, given.options, MECHANISMS[given.name].default_sites)
    if isinstance(mechanism, nn.Module) or not callable(mechanism):
        raise ConfigError(
            "graft: expected a mechanism's name or a callable that takes channels, got an object "
            f"of {type(mechanism).__name__}."
        )
    named = mechanism if hasattr(mechanism, "__qualname__") else type(mechanism)
    default_sites = getattr(mechanism, "default_sites", "blocks")
    return Maker(f"{named.__module__}.{named.__qualname__}", options, default_sites, mechanism)


def initial_gate(attention: nn.Module, site: Site, like: Tensor) -> float:
    """Return the factor by which new attention scales its input: the gate's mean, on noise.

    Raises:
        UnsupportedModel: the factor is no positive number, so that nothing can make up for it.
    """
    x = _noise(site, like)
    y = _respond(attention, x)
    gate = float("nan") if x.is_meta else float((x * y).sum() / x.square().sum())
    if not 0.01 < gate < 100:
        raise UnsupportedModel(
            "graft: expected an initial gate between 0.01 and 100 for start='preserve', got "
            f"{gate} at {site.name!r}. Use start='paper'."
        )
    return gate


def _noise(site: Site, like: Tensor) -> Tensor:
    """Return standard normal maps, the same ones always; the global generator is not used."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, site.channels, *site.size, generator=generator)
    return x.to(device=like.device, dtype=like.dtype)


def _respond(module: nn.Module, x: Tensor) -> Any:
    with torch.no_grad():
        return module.eval()(x)  # the mode that the site has is set on insertion
