"""A copy of a model to follow channels through: weights at random, and no channel sees another.

Attention and norms over channels mix all channels of a map, and what mixes cannot be followed. For
slimming they matter as something of a width, no more; so the copy has, in their places, layers that
scale each channel by itself.
"""

import copy
import math
import time
from collections.abc import Iterable

import torch
from timm.layers.eca import CecaModule, EcaModule
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..errors import UnsupportedModel
from ._discovery import _tensors
from ._insertion import mark
from ._slim_layers import (
    FirstAffine,
    GateStandIn,
    GroupAffine,
    Keeps,
    LastAffine,
    PadStandIn,
    keeps,
)
from .cifar_resnet import Subsample
from .fuse import plain


class StandingIn:
    """The copy, the example that it takes, and how its weights are drawn.

    Args:
        module: the copy, on the CPU, in float32 and evaluation mode.
        example: one image of noise.
        zeros: where scale factors of the model are exactly zero, by name of the parameter, and what
            it has there; with each norm's scales its shifts in the same places.
    """

    def __init__(
        self, module: nn.Module, example: Tensor, zeros: dict[str, tuple[Tensor, Tensor]]
    ) -> None:
        self.module = module
        self.example = example
        self.zeros = zeros
        self.seconds = 0.0  # what one image took

    def draw(self, seed: int = 0, *, zeros: bool = False) -> None:
        """Draw all weights anew; ``zeros``: channels of zero scale keep it, and their shift."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in self.module.named_parameters():
                _draw(parameter, generator)
                if zeros and name in self.zeros:
                    where, values = self.zeros[name]
                    parameter.copy_(torch.where(where, values, parameter))
            for name, buffer in self.module.named_buffers():
                if name.endswith(("running_mean", "running_var")):
                    buffer.fill_(name.endswith("var"))

    def normalise(self, on: bool) -> None:
        """Have all norms use the statistics of what they get, or none."""
        for module in self.module.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.LayerNorm | nn.GroupNorm):
                module.training = on

    def run(self, module: nn.Module | None = None) -> Tensor:
        """Return the first output of the copy, or of a changed copy of it, on the example."""
        with torch.no_grad():
            y = (module or self.module)(self.example)
        return next(_tensors(y))


def standing_in(model: nn.Module, example_input: Tensor) -> StandingIn:
    """Return a copy of ``model`` in which no channel sees another, and no weight is of the model.

    Raises:
        UnsupportedModel: the model cannot take the example.
    """
    with plain(model):
        module = copy.deepcopy(model).to("cpu", torch.float32)
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    module.train(False)
    zeros = _zeros(module)
    shape = (1, *example_input.shape[1:])
    example = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    copied = StandingIn(module, example, zeros)
    try:
        _replace(module, example)
        module.train(False)  # the stand-ins too: one image of one pixel has no statistics
        copied.draw()
        start = time.perf_counter()
        copied.run()
        copied.seconds = time.perf_counter() - start
    except Exception as error:
        raise UnsupportedModel(
            f"find_groups: expected a model that takes a batch of shape {shape}, got "
            f"{type(error).__name__}: {error}. Check example_input."
        ) from error
    return copied


def _zeros(module: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    parameters = dict(module.named_parameters())
    found = {}
    for name, parameter in parameters.items():
        where = parameter.detach() == 0
        if not _is_scale(parameter) or name.endswith("bias") or not where.any():
            continue
        found[name] = (where, parameter.detach().clone())
        shift = parameters.get(f"{name.removesuffix('weight')}bias")
        if shift is not None and shift.shape == parameter.shape:
            found[f"{name.removesuffix('weight')}bias"] = (where, shift.detach().clone())
    return found


def _replace(root: nn.Module, example: Tensor) -> None:
    inside: set[nn.Module] = set()
    padded = _channels_into(root, Subsample, example)
    for name, module in list(root.named_modules()):
        if module in inside or not name:
            continue
        if mark(module) is not None or isinstance(module, Keeps):
            inside.update(module.modules())
            root.set_submodule(name, _gate(name, module))
        elif isinstance(module, EcaModule | CecaModule):
            # A convolution along the channels takes as many as there are: nothing to be cut.
            inside.update(module.modules())
            root.set_submodule(name, nn.Identity())
        elif isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 1:
            first = "2d" in type(module).__name__
            module.__class__ = FirstAffine if first else LastAffine
        elif isinstance(module, nn.GroupNorm):
            module.__class__ = GroupAffine
        elif isinstance(module, Subsample):
            root.set_submodule(name, PadStandIn(module, padded[module]))


def _gate(name: str, module: nn.Module) -> GateStandIn:
    record = mark(module)
    if keeps(module):
        assert isinstance(module, Keeps)
        singles = tuple((i,) for i in range(module.channels))
        choices = getattr(module, "unit_choices", lambda: (singles,))()
        return GateStandIn(module.channels, choices, None)
    # Another's attention says nothing about its width. What runs on fewer channels as it is, such
    # as ECA, has none of its own.
    obstacle = f"attention without keep_channels(kept) ({type(module).__name__} at {name!r})"
    if record is None:
        assert isinstance(module, Keeps)
        return GateStandIn(module.channels, (), obstacle)
    channels: int = record.kept or record.channels
    fits = channels > 1 and takes_any_width(module, channels, record.size)
    return GateStandIn(channels, (), None if fits else obstacle)


def takes_any_width(module: nn.Module, channels: int, size: tuple[int, int]) -> bool:
    """Return whether attention runs on maps of half the channels too, unchanged."""
    x = torch.ones(2, channels // 2, *size)
    try:
        with torch.no_grad():
            y = copy.deepcopy(module).eval()(x)
    except Exception:  # whatever it raises, it does not fit
        return False
    return isinstance(y, Tensor) and y.shape == x.shape


def _channels_into(root: nn.Module, kind: type[nn.Module], x: Tensor) -> dict[nn.Module, int]:
    """Return the channels of what each module of a kind is given."""
    found: dict[nn.Module, int] = {}
    wanted = [module for module in root.modules() if isinstance(module, kind)]

    def note(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        found[module] = args[0].shape[1]

    if wanted:
        look_on(root, x, (module.register_forward_pre_hook(note) for module in wanted))
    return found


def look_on(model: nn.Module, x: Tensor, hooks: Iterable[RemovableHandle]) -> None:
    """Run a model once with hooks, which are taken off again."""
    held = list(hooks)
    try:
        with torch.no_grad():
            model(x)
    finally:
        for hook in held:
            hook.remove()


def _is_scale(parameter: Tensor) -> bool:
    return sum(size > 1 for size in parameter.shape) <= 1


def _draw(parameter: Tensor, generator: torch.Generator) -> None:
    """Draw weights that keep the maps' size, so that no part of the model is too faint to see."""
    if _is_scale(parameter):
        parameter.uniform_(0.5, 1.5, generator=generator)
        return
    bound = math.sqrt(6 / parameter[0].numel())
    parameter.uniform_(-bound, bound, generator=generator)
