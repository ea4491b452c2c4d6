"""The mechanisms as `normattn.fuse` leaves them: the same modules, their arithmetic in kernels.

Each is a subclass that adds a forward and nothing else, so that a module becomes one, and its
plain self again, by a change of class: parameters, keys, hooks and records stay what they are.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from .. import kernels
from ..attention import EAN, NAM, Gate, NAMChannel, NAMSpatial
from ._fused_notice import count, notice
from ._fused_steps import apply_gate, is_plain, norm_obstacle, takes, unobserved


class FusedGate(Gate):
    """A mechanism with kernels for its arithmetic."""

    plain: ClassVar[type[Gate]]

    @classmethod
    def obstacle(cls, gate: Gate) -> str | None:
        """Return why no kernel can stand in for what the gate holds, None where one can."""
        raise NotImplementedError


class FusedNAMChannel(FusedGate, NAMChannel):
    """`NAMChannel` by kernels."""

    plain = NAMChannel

    @classmethod
    def obstacle(cls, gate: Gate) -> str | None:
        assert isinstance(gate, NAMChannel)
        return norm_obstacle(gate.norm)

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        if unobserved() and _gates_channels(self, x):
            count(self, by_kernels=True)
            return apply_gate(x, self)
        count(self, by_kernels=False)
        notice(self, self.norm)
        return NAMChannel.forward(self, x)


class FusedNAMSpatial(FusedGate, NAMSpatial):
    """`NAMSpatial` by kernels."""

    plain = NAMSpatial

    @classmethod
    def obstacle(cls, gate: Gate) -> str | None:
        assert isinstance(gate, NAMSpatial)
        return norm_obstacle(gate.norm, nn.BatchNorm1d)

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        if unobserved() and _gates_pixels(self, x):
            count(self, by_kernels=True)
            return apply_gate(x, self)
        count(self, by_kernels=False)
        notice(self, self.norm)
        return NAMSpatial.forward(self, x)


class FusedNAM(FusedGate, NAM):
    """`NAM` by kernels, one for each of its parts.

    The product of both gates with x is the pixels' gate on the channels' product, so neither gate
    is ever in memory.
    """

    plain = NAM

    @classmethod
    def obstacle(cls, gate: Gate) -> str | None:
        assert isinstance(gate, NAM)
        channel = norm_obstacle(gate.channel.norm)
        return channel or norm_obstacle(gate.spatial.norm, nn.BatchNorm1d)

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        channel, spatial = self.channel, self.spatial
        if unobserved() and _gates_channels(channel, x) and _gates_pixels(spatial, x):
            count(self, by_kernels=True)
            return apply_gate(apply_gate(x, channel), spatial)
        count(self, by_kernels=False)
        notice(self, channel.norm, spatial.norm)
        return NAM.forward(self, x)


class FusedEAN(FusedGate, EAN):
    """`EAN` by kernels."""

    plain = EAN

    @classmethod
    def obstacle(cls, gate: Gate) -> str | None:
        return None

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        if not (unobserved() and _takes(self, x)):
            count(self, by_kernels=False)
            return EAN.forward(self, x)
        count(self, by_kernels=True)
        gain = self.gain * self.importance()  # (C/G,), in float32 at least
        slope = (gain * self.weight).repeat(self.groups)  # (C,)
        offset = (gain * self.bias + self.offset).repeat(self.groups)  # (C,)
        y, _, _ = kernels.norm_gate(x, slope, offset, over="instance", eps=self.eps)
        return y


def _gates_channels(gate: NAMChannel, x: Tensor) -> bool:
    return norm_obstacle(gate.norm) is None and takes(gate.norm, x, gate=True)


def _gates_pixels(gate: NAMSpatial, x: Tensor) -> bool:
    if norm_obstacle(gate.norm, nn.BatchNorm1d) or tuple(x.shape[2:]) != gate.size:
        return False
    return takes(gate.norm, x, gate=True, pixels=True)


def _takes(gate: EAN, x: Tensor) -> bool:
    """Return whether there are kernels that gain by ``x``, and all parameters suit them."""
    if type(x) is not Tensor or x.numel() == 0 or not kernels.pays(x, gate=True):
        return False
    parameters = (gate.weight, gate.bias, gate.gain, gate.offset)
    known = (torch.float32, x.dtype)
    return all(is_plain(p) and p.dtype in known for p in parameters) and kernels.runs_on(x)
