"""Put attention into a model, list what is in it, and take it out again."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ..attention import MECHANISMS, Mechanism
from ..errors import ConfigError, UnsupportedModel, unknown
from ._insertion import (
    ATTENTION,
    MARK,
    How,
    Place,
    attention_at,
    base,
    insert,
    layers,
    mark,
    remove,
)
from ._maker import Maker, initial_gate, maker
from ._sites import InputSize
from ._sites import find_sites as find_sites
from ._support import refuse_unsupported
from ._survey import Site as Site

Start = Literal["paper", "preserve"]


@dataclass(frozen=True)
class Grafted:
    """The record of one grafted module: enough to put an equal one in the same place.

    ``Grafted(**dataclasses.asdict(record))`` equals ``record``, also after a trip through JSON.

    Args:
        site: the name of the place, as in the plain host; in the state dict the module's keys are
            ``<site>.attn.*``.
        mechanism: its name in the registry, or the qualified name of the callable that built it.
        options: its options, beyond what the place decides.
        channels: C of the maps that it gates.
        size: (H, W) of these maps at the input size of the dry run.
        how: appended to a Sequential ("append"), in front of a slot that does nothing at
            inference ("before"), or behind a module, in a container ("after").
        scaled: the norm that ``start="preserve"`` scaled, or None.
        factor: what it was scaled by.
        kept: how many of these channels slimming has left; None for all.
    """

    site: str
    mechanism: str
    options: dict[str, Any]
    channels: int
    size: tuple[int, int]
    how: How
    scaled: str | None = None
    factor: float = 1.0
    kept: int | None = None

    def __post_init__(self) -> None:
        height, width = self.size  # a list, in JSON
        object.__setattr__(self, "size", (height, width))


def graft(
    host: nn.Module,
    mechanism: str | Mechanism | Callable[..., nn.Module],
    *,
    sites: str | Iterable[str] | None = None,
    input_size: InputSize | None = None,
    start: Start = "paper",
    **options: Any,
) -> nn.Module:
    """Put an attention module at each site of a model, in place, and return the model.

    The sites are found by running the host once, in eval mode, on one image of zeros, which leaves
    it as it was. The host's state-dict keys keep their names, so pretrained weights load before and
    after; the attention's are ``<site>.attn.*``. Either every site gets its module or the host
    stays unchanged. (Names of parameters have a ``.base`` in them where a container wraps a layer;
    give ``torch.func.functional_call`` those of ``named_parameters()``, not the state dict's.)

    Args:
        host: the model. It takes a batch of images, and its residual branches are
            ``(B, C, H, W)`` maps.
        mechanism: a name of `normattn.available`, a `normattn.attention.Mechanism`, or any callable
            that takes channels and returns a module which keeps the shape. "none" leaves the host
            as it is.
        sites: "blocks", the ends of all residual and inverted-residual branches, before the
            addition; "stages", the ends of the stages (all but the last; in MobileNets and
            EfficientNets all but the first, as in the papers); or one or more patterns of module
            names, in which ``*`` matches dots too. By default where the mechanism's paper has it.
        input_size: side, or (H, W), of the images; by default what the host was made for, or 224.
            Only mechanisms with a weight for each pixel depend on it.
        start: "paper" inserts and no more, though most gates start near ½, which halves a
            pretrained branch. "preserve" multiplies the norm in front by the inverse of the gate's
            initial mean, so that a pretrained host's output stays (a constant gate) or moves
            little (a gate that hardly depends on its input: NAM on wide layers, EAN, SE).
        options: the mechanism's.

    Raises:
        ConfigError: an unknown name or option, or a pattern without a match.
        UnsupportedModel: the host is compiled, wrapped, scripted or quantised, has no such sites,
            has attention at a site already, or uses a site's layer twice.

    Example:
        >>> from normattn.model.hosts import host
        >>> model = graft(host("resnet20", 10), "ean", groups=8)
        >>> [record.site for record in grafts(model)][:2]
        ['layer1.0.bn2', 'layer1.1.bn2']
    """
    make = maker(mechanism, options)
    if start not in get_args(Start):
        raise ConfigError(unknown("graft", "start", str(start), get_args(Start)))
    refuse_unsupported(host)
    if make.name == "none":
        return host
    found = find_sites(host, make.default_sites if sites is None else sites, input_size)
    places = {place.name: place for place in layers(host)}
    # All that can be refused comes before the first change.
    planned = [_plan(host, places, site, make, preserve=start == "preserve") for site in found]
    if len({id(attention) for _, attention, _ in planned}) < len(planned):
        raise ConfigError(f"graft: expected {make.name} to return a new module for each site.")
    for place, attention, record in planned:
        _insert(place, attention, record)
        _scale(places, record, record.factor)
    return host


def ungraft(model: nn.Module) -> nn.Module:
    """Take all grafted attention out, in place, and return the model: the host itself.

    What ``start="preserve"`` multiplied into a norm is divided out again.

    Raises:
        UnsupportedModel: the model is compiled, wrapped, scripted or quantised.
    """
    refuse_unsupported(model)
    places = {place.name: place for place in layers(model)}
    for record in grafts(model):
        remove(places[record.site])
        _scale(places, record, 1 / record.factor)
    return model


def grafts(model: nn.Module) -> tuple[Grafted, ...]:
    """Return a record of each grafted module, in the order of the model.

    They are read off the modules themselves, so they are true of a copy, of an unpickled model, and
    of a model that became part of another, where the sites have longer names.
    """
    found: dict[nn.Module, str] = {}
    for place in layers(model):
        attention = attention_at(place.module)
        if attention is not None:
            found.setdefault(attention, place.name)  # the first name, where a place has two
    return tuple(_renamed(mark(attention), name) for attention, name in found.items())


def regraft(host: nn.Module, records: Iterable[Grafted]) -> nn.Module:
    """Put modules where the records say that they were, in place and without running the host.

    The weights, those of scaled norms among them, are to be loaded afterwards.

    Raises:
        ConfigError: a record names a mechanism that is not in the registry.
        UnsupportedModel: the host has no such place, or has attention there.
    """
    refuse_unsupported(host)
    places = {place.name: place for place in layers(host)}
    planned = []
    records = list(records)
    for record in records:
        if record.mechanism not in MECHANISMS:
            raise ConfigError(unknown("graft", "mechanism", record.mechanism, MECHANISMS))
        if record.how not in get_args(How):
            raise ConfigError(unknown("graft", "way of insertion", record.how, get_args(How)))
        site = Site(record.site, record.channels, record.size, "pattern", record.how)
        place = _checked_place(host, places, site)
        make = maker(record.mechanism, record.options)
        planned.append((place, make.build(site, _like(host, place)), record))
    if len({record.site for record in records}) < len(records):
        raise UnsupportedModel("graft: expected records of different sites, got one site twice.")
    for place, attention, record in planned:
        _insert(place, attention, record)
    return host


def _plan(
    host: nn.Module, places: Mapping[str, Place], site: Site, make: Maker, *, preserve: bool
) -> tuple[Place, nn.Module, Grafted]:
    place = _checked_place(host, places, site)
    like = _like(host, place)
    attention = make.build(site, like)
    record = Grafted(site.name, make.name, dict(make.options), site.channels, site.size, site.how)
    if not preserve:
        return place, attention, record
    if site.fed_by is None:
        raise UnsupportedModel(
            "graft: expected a norm with scales right in front of the attention for "
            f"start='preserve', got none at {site.name!r}. Use start='paper', or other sites."
        )
    factor = 1 / initial_gate(attention, site, like)
    return place, attention, dataclasses.replace(record, scaled=site.fed_by, factor=factor)


def _checked_place(host: nn.Module, places: Mapping[str, Place], site: Site) -> Place:
    place = places.get(site.name)
    if place is None or place.parent is None:
        known = [name for name in places if name]
        raise UnsupportedModel(
            unknown("graft", f"layer of {type(host).__name__}", site.name, known)
        )
    kind = type(place.module).__name__
    if attention_at(place.module) is not None:
        raise UnsupportedModel(
            f"graft: expected a place without attention, got a second graft at {site.name!r}. "
            "Choose other sites, or ungraft first."
        )
    if hasattr(place.module, ATTENTION):
        raise UnsupportedModel(
            f"graft: expected a layer without an {ATTENTION!r} of its own, whose keys would clash, "
            f"got {kind} at {site.name!r}. Choose another site."
        )
    if site.how == "append" and type(place.module) is not nn.Sequential:
        raise UnsupportedModel(
            f"graft: expected a Sequential to append to, got {kind} at {site.name!r}. Graft into "
            "the host that the record was made with."
        )
    return place


def _like(host: nn.Module, place: Place) -> Tensor:
    """Return a tensor of the device and type that a module at this place should have."""
    around = [m for m in (place.module, place.parent, host) if m is not None]
    tensors = itertools.chain.from_iterable(m.parameters() for m in around)
    return next((t for t in tensors if t.is_floating_point()), torch.empty(0))


def _insert(place: Place, attention: nn.Module, record: Grafted) -> None:
    setattr(attention, MARK, record)
    attention.train(place.module.training)
    insert(place, attention, record.how)


def _scale(places: Mapping[str, Place], record: Grafted, factor: float) -> None:
    if record.scaled is None:
        return
    norm: Any = base(places[record.scaled].module)
    with torch.no_grad():
        norm.weight.mul_(factor)
        if norm.bias is not None:
            norm.bias.mul_(factor)


def _renamed(record: Grafted, site: str) -> Grafted:
    """Return the record with the names that its places have in this model."""
    if site == record.site:
        return record
    scaled = record.scaled
    if scaled is not None and site.endswith(record.site):  # part of a larger model now
        scaled = site.removesuffix(record.site) + scaled
    elif scaled is not None:
        scaled = scaled.removeprefix(record.site.removesuffix(site))
    return dataclasses.replace(record, site=site, scaled=scaled)
