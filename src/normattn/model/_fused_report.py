"""What kernels take of a model, what they leave, why, and how often they have computed."""

from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass

import torch
from torch import nn

from .. import kernels
from ..attention import Gate
from ..attention.controls import NoAttention
from ._fused_blocks import FusedBlock
from ._fused_families import BLOCKS, FORMS, PLAIN
from ._fused_mechanisms import FusedGate
from ._fused_notice import NOTICE, Notice
from ._insertion import mark

#: Of a map large enough for kernels on every device: it asks for its type alone.
_PROBE = (1, 64, 64, 256)


@dataclass(frozen=True)
class FusedLayer:
    """A block or a mechanism, what kernels take of it, and what they have computed.

    Args:
        site: its name in the model.
        layer: its class, as it is without kernels.
        kernels: what kernels take, for maps large enough and of a type that they know.
        plain: what runs as before, and why.
        by_kernels: how many of its parts, in all its calls so far, kernels computed.
        in_plain: how many ran as before. Neither counts calls of a compiled model.
    """

    site: str
    layer: str
    kernels: tuple[str, ...]
    plain: tuple[str, ...]
    by_kernels: int = 0
    in_plain: int = 0


@dataclass(frozen=True)
class FuseReport:
    """What kernels take of a model, and what they have computed; prints as a list.

    Args:
        kernels: by type of device, which kernels are loaded, or why there are none.
        blocks: residual blocks in which kernels take something.
        mechanisms: attention modules that kernels take.
        left: blocks and attention modules that are as they were, and why.
    """

    kernels: Mapping[str, str]
    blocks: tuple[FusedLayer, ...]
    mechanisms: tuple[FusedLayer, ...]
    left: tuple[FusedLayer, ...]

    def __str__(self) -> str:
        lines = [f"kernels for {device}: {text}" for device, text in self.kernels.items()]
        layers = (*self.blocks, *self.mechanisms, *self.left)
        by_kernels, in_plain = (
            sum(counts) for counts in zip((0, 0), *map(_counts, layers), strict=True)
        )
        told = (
            f"{by_kernels} parts by kernels, {in_plain} plain" if by_kernels + in_plain else "none"
        )
        lines.append(f"calls since fuse, compiled ones not counted: {told}")
        for title, layers in (
            ("blocks with kernels", self.blocks),
            ("mechanisms with kernels", self.mechanisms),
            ("left as they were", self.left),
        ):
            lines.append(f"{title}: {len(layers)}")
            for found in layers:
                lines.append(f"  {found.site} ({found.layer})")
                lines += [f"    {part}" for part in found.kernels]
                lines += [f"    plain: {part}" for part in found.plain]
                if any(_counts(found)):
                    lines.append(f"    ran {found.by_kernels} by kernels, {found.in_plain} plain")
        return "\n".join(lines)


def survey(model: nn.Module) -> FuseReport:
    """Return what kernels take of a model as it is now: its device, type, modes and layers."""
    loaded = kernels.status()
    blocks: list[FusedLayer] = []
    mechanisms: list[FusedLayer] = []
    left: list[FusedLayer] = []
    for site, module in candidates(model):
        layer = _layer(site, module, loaded)
        group = blocks if isinstance(module, FusedBlock) else mechanisms
        (group if layer.kernels else left).append(layer)
    return FuseReport(loaded, tuple(blocks), tuple(mechanisms), tuple(left))


def candidates(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the blocks and mechanisms that have kernels, or whose lack of them is worth a line."""
    inside: set[nn.Module] = set()
    blocks = tuple(form.plain for form in BLOCKS)
    for site, module in model.named_modules():
        if module in inside or isinstance(module, NoAttention):
            continue
        if isinstance(module, Gate) or mark(module) is not None:
            inside.update(module.modules())  # NAM is made of the two others
            yield site, module
        elif isinstance(module, blocks):
            yield site, module


def _layer(site: str, module: nn.Module, loaded: Mapping[str, str]) -> FusedLayer:
    cls = type(module)
    name = PLAIN.get(cls, cls).__name__
    known = module.__dict__.get(NOTICE)
    counts = astuple(known.runs) if isinstance(known, Notice) else (0, 0)
    if obstacle := _obstacle(module, loaded):
        return FusedLayer(site, name, (), (obstacle,), *counts)
    if isinstance(module, FusedBlock):
        return FusedLayer(site, name, *module.parts(module), *counts)
    assert isinstance(module, FusedGate)
    obstacle = module.obstacle(module)
    parts, left = (() if obstacle else ("gate",)), ((obstacle,) if obstacle else ())
    return FusedLayer(site, name, parts, left, *counts)


def _counts(layer: FusedLayer) -> tuple[int, int]:
    return layer.by_kernels, layer.in_plain


def _obstacle(module: nn.Module, loaded: Mapping[str, str]) -> str | None:
    """Return why no kernel computes anything of a module, as far as its layers do not matter."""
    if not isinstance(module, FusedGate | FusedBlock):
        if (strange := strangers(module)) is not None:
            return strange
        known = next((cls for cls in type(module).__mro__ if cls in FORMS), None)
        if known is None:
            return "there is no kernel for this mechanism"
        if known is not type(module):
            return f"a subclass of {known.__name__}, whose forward may be another"
        return "fuse was not called since it came in"
    like = next((p for p in module.parameters() if p.is_floating_point()), None)
    if like is None:
        return None
    device, dtype = like.device.type, str(like.dtype).removeprefix("torch.")
    status = loaded.get(device, "none").partition(". ")[0]  # without what to do about it
    if status.startswith("none"):
        return f"kernels for {device}: {status}"
    runs = kernels.runs_on(torch.empty(_PROBE, device=like.device, dtype=like.dtype))
    return None if runs else f"no kernel for {device} computes in {dtype}"


def strangers(module: nn.Module) -> str | None:
    """Return what a block holds that its class did not have when this was written."""
    form = FORMS.get(type(module))
    if form is None or not issubclass(form, FusedBlock):
        return None
    names = sorted(module._modules.keys() - form.layers())
    return f"it has layers that we do not know: {', '.join(names)}" if names else None
