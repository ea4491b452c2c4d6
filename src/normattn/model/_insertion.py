"""Where a module sits in a host, and how another gets in behind it without renaming anything.

A host that carries attention keeps the names it had: the containers below are transparent, both in
the names that `layers` gives and in the state dict. Attention lives at ``<site>.attn``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

How = Literal["append", "before", "after"]

ATTENTION = "attn"
#: The attribute of a grafted module that holds its record; it survives deepcopy and pickle.
MARK = "normattn_graft"


class Graft(nn.Module):
    """A host's module with attention behind it: ``y = attn(base(x))``.

    In the state dict the base's keys stay as they were and the attention's are ``attn.*``. The
    names of parameters have ``base.`` in them, since those must lead to the modules.
    """

    def __init__(self, base: nn.Module, attn: nn.Module) -> None:
        super().__init__()
        self.base = base
        self.attn = attn
        self._loaded_at = ""
        self.register_state_dict_post_hook(_keep_hosts_keys)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(_report_hosts_keys)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.attn(self.base(x))
        return y

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        self._loaded_at = prefix
        own = f"{prefix}{ATTENTION}."
        for key in [k for k in state_dict if k.startswith(prefix) and not k.startswith(own)]:
            state_dict[f"{prefix}base.{key[len(prefix) :]}"] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class GraftBefore(Graft):
    """A slot that does nothing at inference (``drop_path``), attention in front of it."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.base(self.attn(x))
        return y


def _keep_hosts_keys(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    inside = f"{prefix}base."
    for key in [k for k in state if k.startswith(prefix)]:  # all, so that the order stays
        value = state.pop(key)
        state[prefix + key[len(inside) :] if key.startswith(inside) else key] = value


def _report_hosts_keys(module: nn.Module, incompatible: Any) -> None:
    assert isinstance(module, Graft)
    prefix, inside = module._loaded_at, f"{module._loaded_at}base."
    for keys in incompatible:
        keys[:] = [prefix + k[len(inside) :] if k.startswith(inside) else k for k in keys]


@dataclass(frozen=True)
class Place:
    """What stands under a name of the host, and the parent that holds it (None for the root)."""

    name: str
    module: nn.Module
    parent: nn.Module | None
    key: str


def layers(model: nn.Module) -> Iterator[Place]:
    """Yield every place of the host by the name that the plain host gives it, parents first.

    A grafted place appears once, with its container; what is inside the attention does not appear.
    A module that is registered twice appears twice, but what is in it only once.
    """
    yield from _layers(Place("", model, None, ""), set())


def _layers(place: Place, visited: set[nn.Module]) -> Iterator[Place]:
    yield place
    host = base(place.module)
    if host in visited:
        return
    visited.add(host)
    for key, child in host._modules.items():
        if child is not None and mark(child) is None:
            name = f"{place.name}.{key}" if place.name else key
            yield from _layers(Place(name, child, host, key), visited)


def base(module: nn.Module) -> nn.Module:
    """Return the host's own module, without the container."""
    return module.base if isinstance(module, Graft) else module


def mark(module: nn.Module) -> Any:
    """Return the record on a grafted module, or None for a module of the host."""
    return getattr(module, MARK, None)


def attention_at(module: nn.Module) -> nn.Module | None:
    """Return the attention that was grafted onto this very module, if any."""
    attention = module._modules.get(ATTENTION)
    return attention if attention is not None and mark(attention) is not None else None


def insert(place: Place, attention: nn.Module, how: How) -> None:
    """Put ``attention`` at ``place``; that it can go there has been checked."""
    if how == "append":
        place.module.add_module(ATTENTION, attention)
        return
    assert place.parent is not None
    container = (GraftBefore if how == "before" else Graft)(place.module, attention)
    container.training = place.module.training
    place.parent._modules[place.key] = container


def remove(place: Place) -> None:
    """Take the attention out of ``place`` and leave the host's own module there."""
    if isinstance(place.module, Graft):
        assert place.parent is not None
        place.parent._modules[place.key] = place.module.base
    else:
        del place.module._modules[ATTENTION]
