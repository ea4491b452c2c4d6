"""From what a forward did to the places where attention belongs."""

import fnmatch
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import ConfigError, UnsupportedModel, unknown
from ._discovery import Node, Sum, Trace
from ._insertion import How, base, layers

Kind = Literal["identity", "projection", "plain", "stage", "pattern"]

#: Classes that are inverted residual blocks by name, so that also those count whose stride or width
#: leaves them no shortcut: timm's and torchvision's MobileNets, EfficientNets, and their relatives.
INVERTED_RESIDUALS = {
    "InvertedResidual",
    "DepthwiseSeparableConv",
    "EdgeResidual",
    "UniversalInvertedResidual",
    "CondConvResidual",
    "MBConv",
    "FusedMBConv",
}


@dataclass(frozen=True)
class Site:
    """A place in a host where attention can go, as the dry run found it.

    Args:
        name: the module whose output will be gated.
        channels: C of that output.
        size: (H, W) of that output, at the input size of the dry run.
        kind: what led here: the end of a branch that joins an "identity" or a "projection"
            shortcut or, in an inverted residual block, none at all ("plain"); the end of a
            "stage"; a "pattern".
        how: how a module would get in (see `Grafted`).
        fed_by: the norm that computed that output, if it was one: what ``start="preserve"`` scales.
    """

    name: str
    channels: int
    size: tuple[int, int]
    kind: Kind
    how: How
    fed_by: str | None = None


@dataclass(frozen=True)
class _Block:
    module: nn.Module
    branch: Node
    kind: Kind


class Survey:
    """The sites of a host that was traced."""

    def __init__(self, host: nn.Module, trace: Trace) -> None:
        self.host = type(host).__name__
        self.trace = trace
        self.places = list(layers(host))
        self.at = {place.name: place.module for place in self.places}
        # A container and the module in it share the host's name for it.
        self.names: dict[nn.Module, str] = {}
        for place in self.places:
            self.names.setdefault(place.module, place.name)
            self.names.setdefault(base(place.module), place.name)

    def branches(self) -> tuple[Site, ...]:
        """Return the ends of all residual and inverted-residual branches, in running order."""
        sites = [self._site(self._end_of(block), block.kind) for block in self._blocks()]
        return tuple({site.name: site for site in sites}.values())  # a branch may be added twice

    def stages(self) -> tuple[Site, ...]:
        """Return the ends of the stages: the last of each run of blocks with one output shape.

        The last stage of a residual network is left out, as its output only gets pooled. In the
        MobileNets and EfficientNets it passes a convolution first and counts; there the first
        stage, which expands nothing, does not.
        """
        outputs = self.trace.outputs
        blocks = [b for b in self._blocks() if b.module in outputs and self.names[b.module]]
        runs = itertools.groupby(blocks, key=lambda b: outputs[b.module].shape)
        ends = [list(run)[-1] for _, run in runs]
        inverted = any(_is_inverted(block.module) for block in blocks)
        chosen = ends[1:] if inverted else ends[:-1]
        if not chosen:
            raise UnsupportedModel(
                f"graft: expected a host of several stages, got {self.host} with {len(ends)}. Give "
                "sites as patterns of module names."
            )
        return tuple(self._site(self._stage_of(block), "stage") for block in chosen)

    def matching(self, patterns: Sequence[str]) -> tuple[Site, ...]:
        """Return the layers that any of the patterns matches, in the order of the host."""
        if not patterns or not all(isinstance(p, str) and p for p in patterns):
            raise ConfigError(
                "graft: expected sites to be 'blocks', 'stages' or patterns of module names, got "
                f"{patterns!r}."
            )
        names = [name for name in self.at if name]
        chosen: set[str] = set()
        for pattern in patterns:
            matched = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
            if not matched:
                known = ["blocks", "stages", *names]
                raise ConfigError(unknown("graft", f"layer of {self.host}", pattern, known))
            chosen.update(matched)
        return tuple(self._site(name, "pattern") for name in names if name in chosen)

    def _blocks(self) -> list[_Block]:
        """Return the blocks with a branch, in running order."""
        found = [block for s in self.trace.sums if (block := self._residual(s)) is not None]
        known = {block.module for block in found}
        ends = {block.branch for block in found}  # a block may be the branch of one around it
        for module, node in self.trace.outputs.items():
            new = module not in known and node not in ends
            if new and _is_inverted(module) and module in self.names:
                found.append(_Block(module, node, "plain"))
        if not found:
            raise UnsupportedModel(
                "graft: expected a host with residual branches of (B, C, H, W) maps, got "
                f"{self.host} without any. Give sites as patterns of module names."
            )
        return sorted(found, key=lambda block: block.branch.order)

    def _residual(self, s: Sum) -> _Block | None:
        """Tell the branch from the shortcut; None if this is no residual addition."""
        owner = self.names.get(s.owner)
        if owner is None or (owner and _merges(s.owner)):
            return None
        shortcut, branch = sorted((s.left, s.right), key=lambda node: (node.depth, node.order))
        if branch.comes_from(shortcut):
            # A layer's own arithmetic, as in ConvNeXt V2's response normalization, is no branch.
            own = branch.depth == shortcut.depth and not any(True for _ in s.owner.children())
            return None if own else _Block(s.owner, branch, "identity")
        # A fusion of several inputs, as in a feature pyramid, is no residual; nor are parallel
        # branches of one depth.
        origins = [node.ancestors(until=s.inputs) & s.inputs for node in (shortcut, branch)]
        if origins[0] != origins[1] or shortcut.depth == branch.depth:
            return None
        # Nor two that have gone far from each other, as where HRNet joins its resolutions: a
        # shortcut is a convolution long, or a separable one.
        fork = max((node.depth for node in shortcut.ancestors() & branch.ancestors()), default=0)
        return _Block(s.owner, branch, "projection") if shortcut.depth <= fork + 2 else None

    def _end_of(self, block: _Block) -> str:
        """Return the last module of the block, and the outermost, that returned the branch."""
        owner = self.names[block.module]
        prefix = f"{owner}." if owner else ""
        names = [self.names.get(module, "") for module in block.branch.emitters]
        inside = [name for name in names if name != owner and name.startswith(prefix) and name]
        if not inside:
            raise UnsupportedModel(
                "graft: expected a residual branch that ends in a module, got one that ends in the "
                f"forward of {type(block.module).__name__} at {owner!r}. Give sites as patterns of "
                "module names."
            )
        return inside[-1]

    def _stage_of(self, block: _Block) -> str:
        """Return the Sequential that the block ends, or else the block itself."""
        emitters = self.trace.outputs[block.module].emitters
        around = emitters[emitters.index(block.module) :]
        ended = [m for m in around if type(m) is nn.Sequential and self.names.get(m)]
        return self.names[ended[0] if ended else block.module]

    def _site(self, name: str, kind: Kind) -> Site:
        module = self.at[name]
        node = self.trace.outputs.get(module)
        if node is None or len(node.shape) != 4 or node.features_last:
            got = "no such output" if node is None else f"shape {tuple(node.shape)}"
            got += ", channels last," if node is not None and node.features_last else ""
            raise UnsupportedModel(
                f"graft: expected a layer with one output of shape (B, C, H, W), got {got} from "
                f"{type(module).__name__} at {name!r}. Choose another site."
            )
        how = self._how(module)
        self._refuse_shared(module, name, how)
        self._refuse_lost(module, name, how)
        _, channels, height, width = node.shape
        return Site(name, channels, (height, width), kind, how, self._norm_behind(node))

    def _refuse_shared(self, module: nn.Module, name: str, how: How) -> None:
        runs = self.trace.calls[module]
        names = [place.name for place in self.places if place.module is module]
        # What is appended to a Sequential is in it wherever that is registered.
        if runs == 1 and (len(names) == 1 or how == "append"):
            return
        got = f"{runs} runs" if runs > 1 else f"the names {' and '.join(names)}"
        raise UnsupportedModel(
            f"graft: expected a layer that is used once, got {got} of {type(module).__name__} at "
            f"{name!r}. Choose sites with layers of their own, by patterns of module names."
        )

    def _refuse_lost(self, module: nn.Module, name: str, how: How) -> None:
        """Refuse a place where attention could not run, or would vanish later."""
        if how != "append" and module in self.trace.many_inputs:
            raise UnsupportedModel(
                f"graft: expected a layer that takes one input, got {type(module).__name__} at "
                f"{name!r}, which takes several. Choose another site, such as a layer inside it."
            )
        for end, letter in enumerate(name):
            if letter == "." and _merges(self.at[name[:end]]):
                raise UnsupportedModel(
                    "graft: expected a place that stays, got one inside "
                    f"{type(self.at[name[:end]]).__name__}, whose reparameterize() may drop the "
                    f"attention, at {name!r}. Choose a site around it."
                )

    def _how(self, module: nn.Module) -> How:
        if type(module) is nn.Sequential:
            return "append"
        has_state = any(True for _ in itertools.chain(module.parameters(), module.buffers()))
        return "before" if module in self.trace.idle and not has_state else "after"

    def _norm_behind(self, node: Node) -> str | None:
        source = next((m for m in node.emitters if m not in self.trace.idle), None)
        if not isinstance(source, _BatchNorm | nn.GroupNorm | nn.LayerNorm):
            return None
        return self.names.get(source) if isinstance(source.weight, nn.Parameter) else None


def _is_inverted(module: nn.Module) -> bool:
    return type(module).__name__ in INVERTED_RESIDUALS


def _merges(module: nn.Module) -> bool:
    """Tell whether a block can replace what is in it by one convolution, as RepVGG's do."""
    return any(hasattr(module, name) for name in ("reparameterize", "switch_to_deploy"))
