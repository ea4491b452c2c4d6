"""Residual blocks as `normattn.fuse` leaves them: norms, attention, addition and ReLU in kernels.

As with the mechanisms, each is a subclass of the block that it stands for: it adds a forward, and
the names of the block's layers in the order in which they run.
"""

import functools
from typing import Any, ClassVar, NamedTuple

from timm.layers.drop import DropPath
from torch import Tensor, nn

from ._fused_mechanisms import FusedNAMChannel
from ._fused_notice import count, notice
from ._fused_steps import (
    HOOKS,
    apply_norm,
    idle,
    no_modes,
    norm_obstacle,
    relu_obstacle,
    takes,
    unobserved,
    untouched,
    uses_batch,
    worth,
)
from ._insertion import Graft, GraftBefore


class Step(NamedTuple):
    """Names of a convolution and what follows it, up to the activation and beyond.

    Args:
        conv: the convolution.
        norm: the norm behind it.
        act: the activation.
        slots: what may stand between norm and activation.
        after: what may follow the activation.
    """

    conv: str
    norm: str
    act: str
    slots: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


class Tail(NamedTuple):
    """What a kernel would compute at the end of a block, or the obstacle to that."""

    norm: Any  # an nn.BatchNorm2d where there is no obstacle
    gate: FusedNAMChannel | None
    obstacle: str | None


class FusedBlock(nn.Module):
    """A residual block whose norms run in kernels together with what follows them."""

    plain: ClassVar[type[nn.Module]]
    inner: ClassVar[tuple[Step, ...]]
    end: ClassVar[Step]
    bypass: ClassVar[str] = "downsample"
    adds_in_place: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        run = cls._run

        # The wrapper makes torch.jit.script, which looks for the source, find the plain form.
        @functools.wraps(cls.plain.forward)
        def forward(self: FusedBlock, x: Tensor) -> Tensor:
            return run(self, x)

        cls.forward = forward

    def _run(self, x: Tensor) -> Tensor:
        if not unobserved():
            count(self, by_kernels=False, parts=len(self.inner) + 1)
            result: Tensor = self.plain.forward(self, x)
            return result
        y = x
        layers = self._modules
        for step in self.inner:
            # One name for all, so that no map outlives its use.
            y = layers[step.conv](y)  # type: ignore[misc]  # a block without one has no such step
            y = self._step(step, y)
        y = layers[self.end.conv](y)  # type: ignore[misc]
        return self._end(y, x)

    def _step(self, step: Step, z: Tensor) -> Tensor:
        norm: Any = self._modules[step.norm]
        if (
            worth(z, gate=False)
            and self.step_obstacle(self, step) is None
            and takes(norm, z, gate=False)
        ):
            count(self, by_kernels=True)
            y = apply_norm(z, norm, own=self._owns(step))
        else:
            count(self, by_kernels=False)
            notice(self, norm)
            y = self._through(norm(z), step.slots)
            y = getattr(self, step.act)(y)
        return self._through(y, step.after)

    def _end(self, z: Tensor, x: Tensor) -> Tensor:
        step, shortcut = self.end, None
        norm, gate, obstacle = self.tail(self)
        if obstacle is None and _tail_takes(norm, gate, z):
            shortcut = self._shortcut(x)
            if _alike(shortcut, z):
                for module in (self,) if gate is None else (self, gate):
                    count(module, by_kernels=True)
                return apply_norm(z, norm, gate=gate, residual=shortcut, own=self._owns(step))
        count(self, by_kernels=False)
        notice(self, norm)
        y = self._through(getattr(self, step.norm)(z), step.slots)
        if shortcut is None:
            shortcut = self._shortcut(x)
        if self.adds_in_place:
            y += shortcut
        else:
            y = y + shortcut
        result: Tensor = getattr(self, step.act)(y)
        return result

    def _shortcut(self, x: Tensor) -> Tensor:
        layer = getattr(self, self.bypass)
        y: Tensor = x if layer is None else layer(x)
        return y

    def _through(self, x: Tensor, names: tuple[str, ...]) -> Tensor:
        for name in names:
            layer = getattr(self, name)
            x = x if layer is None else layer(x)
        return x

    def _owns(self, step: Step) -> bool:
        """Return whether what the convolution returned is known to nobody else."""
        conv = getattr(self, step.conv)
        return type(conv) is nn.Conv2d and untouched(conv) and no_modes()

    @classmethod
    def step_obstacle(cls, block: nn.Module, step: Step) -> str | None:
        """Return why no kernel can stand in for a norm and its activation, None where one can."""
        for name in step.slots:
            if not idle(layer := getattr(block, name)):
                return f"{type(layer).__name__} stands between"
        norm, activation = block._modules[step.norm], block._modules[step.act]
        return norm_obstacle(norm) or relu_obstacle(activation)  # type: ignore[arg-type]  # modules

    @classmethod
    def tail(cls, block: nn.Module) -> Tail:
        """Find the last norm and the attention behind it, wherever it was put in."""
        norm, found, hooked = getattr(block, cls.end.norm), [], False
        if type(norm) is Graft:
            hooked, found, norm = not untouched(norm), [norm.attn], norm.base
        for name in cls.end.slots:
            layer = getattr(block, name)
            if type(layer) is GraftBefore:
                hooked, layer = hooked or not untouched(layer), layer.base
                found.append(getattr(block, name).attn)
            if not (idle(layer) or _lets_pass(layer)):
                found.append(layer)
        obstacle = norm_obstacle(norm) or relu_obstacle(getattr(block, cls.end.act))
        if obstacle is None and hooked:
            obstacle = HOOKS
        if obstacle is not None or not found:
            return Tail(norm, None, obstacle)
        if len(found) > 1 or type(found[0]) is not FusedNAMChannel:
            names = " and ".join(type(layer).__name__ for layer in found)
            return Tail(norm, None, f"no kernel takes {names} together with its neighbours")
        return Tail(norm, found[0], _gate_obstacle(found[0], norm))

    @classmethod
    def parts(cls, block: nn.Module) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return what kernels would compute of a block as it is, and what not with the reason."""
        by_kernels: list[str] = []
        left: list[str] = []
        for step in cls.inner:
            part = f"{step.norm} + {step.act}"
            obstacle = cls.step_obstacle(block, step)
            (left if obstacle else by_kernels).append(f"{part}: {obstacle}" if obstacle else part)
        _, gate, obstacle = cls.tail(block)
        attention = "" if gate is None else f"{type(gate).plain.__name__} + "
        part = f"{cls.end.norm} + {attention}shortcut + {cls.end.act}"
        (left if obstacle else by_kernels).append(f"{part}: {obstacle}" if obstacle else part)
        return tuple(by_kernels), tuple(left)

    @classmethod
    def layers(cls) -> set[str]:
        """Return the names of all layers that such a block can have."""
        steps = (*cls.inner, cls.end)
        names = {name for s in steps for name in (s.conv, s.norm, s.act, *s.slots, *s.after)}
        return {cls.bypass, *names}


def _gate_obstacle(gate: FusedNAMChannel, norm: nn.BatchNorm2d) -> str | None:
    if not untouched(gate):
        return HOOKS
    same = uses_batch(gate.norm) == uses_batch(norm)
    return norm_obstacle(gate.norm) or (None if same else "its two norms are in different modes")


def _tail_takes(norm: nn.BatchNorm2d, gate: FusedNAMChannel | None, z: Tensor) -> bool:
    if gate is None:
        return takes(norm, z, gate=False)
    return takes(norm, z, gate=True) and takes(gate.norm, z, gate=True)


def _alike(shortcut: Tensor, z: Tensor) -> bool:
    if type(shortcut) is not Tensor:
        return False  # what it means to add it is for itself to say
    return (shortcut.shape, shortcut.dtype, shortcut.device) == (z.shape, z.dtype, z.device)


def _lets_pass(layer: nn.Module) -> bool:
    """Return whether a slot for stochastic depth does nothing as things are."""
    if type(layer) is not DropPath or not untouched(layer):
        return False
    return not (layer.training and layer.drop_prob)
