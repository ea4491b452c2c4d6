"""The sites of a model's gates, by the names that a person knows, and what each gate is made of."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from ..attention import MECHANISMS, NAM, Gate, Mechanism
from ..attention._gate import _no_autocast, at_least_float32
from ._gates_watch import gate_values
from ._gates_watch import gates as outermost
from ._insertion import attention_at, layers, mark


@dataclass(frozen=True, eq=False)
class Place:
    """A gate at a site.

    Args:
        site: the dotted name of the place in the plain host; of the gate where it is no graft.
        mechanism: its label, ``ean(groups=8)``; its class where it is none of the registry.
        gate: the module.
    """

    site: str
    mechanism: str
    gate: Gate


def places(model: nn.Module) -> tuple[list[Place], list[tuple[str, str]]]:
    """Return the gates of a model, and the sites of attention that has none, each with the reason.

    A gate inside another one is a part of it.
    """
    names = dict(outermost(model))
    sites: dict[nn.Module, tuple[str, str]] = {}
    blind: list[tuple[str, str]] = []
    for place in layers(model):
        attention = attention_at(place.module)
        if attention is None or attention in sites:
            continue
        within = dict(outermost(attention))
        for name, gate in within.items():
            sites[gate] = (f"{place.name}.{name}" if name else place.name, _label(attention, gate))
        if not within:
            kind = type(attention).__name__
            blind.append((place.name, f"{kind} has no gate(x) that could be looked at"))
    found = [Place(*sites.get(gate, (name, _name(gate))), gate) for name, gate in names.items()]
    return found, blind


def parts(gate: Gate, x: Tensor) -> Iterator[tuple[str, Gate, Tensor]]:
    """Yield what a gate multiplies ``x`` by, as a whole and, of NAM's product, each of the two.

    Yields:
        The part's name ("" for the whole), its module, and its values in the shape of ``x``.
    """
    if not isinstance(gate, NAM):
        yield "", gate, gate_values(gate, x)
        return
    with _no_autocast(x.device.type):
        wide = x.to(gate._dtype(x))
        channel = gate.channel.gate(wide)
        spatial = gate.spatial.gate((wide * channel).to(wide.dtype))
        whole = at_least_float32(channel * spatial)
    yield "", gate, whole.expand_as(x)
    yield "channel", gate.channel, at_least_float32(channel).expand_as(x)
    yield "spatial", gate.spatial, at_least_float32(spatial).expand_as(x)


def numbers(gate: Gate) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return a gate's scale factors and its importance, in the order of its weights; () for none.

    A gate of two parts has neither: its parts have.
    """
    if isinstance(gate, NAM):
        return (), ()
    scales = tuple(value for scale in gate.scales() for value in _listed(scale))
    importance = getattr(gate, "importance", None)
    return scales, _listed(importance()) if callable(importance) else ()


def _listed(values: Tensor) -> tuple[float, ...]:
    """Return the numbers with the digits that float32 has, which are half of what is printed."""
    return tuple(float(f"{value:.8g}") for value in values.detach().float().flatten().tolist())


def _label(attention: nn.Module, gate: Gate) -> str:
    record = mark(attention)
    if record.mechanism not in MECHANISMS:
        return str(record.mechanism)
    placed = {key: value for key, value in record.options.items() if key != "size"}
    return Mechanism(record.mechanism, placed).label


def _name(gate: Gate) -> str:
    kinds = {kind: name for name, kind in MECHANISMS.items()}
    return kinds.get(type(gate), type(gate).__name__)
