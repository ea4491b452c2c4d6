"""When a kernel may stand in for layers, and the call that does.

A fused form must never be noticed but by the clock. So each condition under which it would be (a
hook on a layer that is passed over, a layer that was replaced, a tracer that wants plain
operations) is an obstacle here, and the fused forms then run the layers one by one.
"""

from typing import Final

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as _module
from torch.nn.modules.batchnorm import _BatchNorm

from .. import kernels
from ..attention import NAMChannel, NAMSpatial
from ..attention._gate import at_least_float32

SYNC: Final = "SyncBatchNorm shares its statistics between processes, which no kernel does"
HOOKS: Final = "there are hooks on it"
NO_AFFINE: Final = "its norm has no scale or no shift"
NOT_RELU: Final = "the activation is no ReLU"


def unobserved() -> bool:
    """Return whether nobody follows this forward who must see the layers themselves.

    An exported, traced or transformed model is one of plain operations, which work everywhere and
    have all derivatives; hooks on all modules expect to be called for each.
    """
    return not (
        torch.compiler.is_exporting()
        or torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0  # tangents are asked for
        or _module._has_any_global_hook()  # type: ignore[no-untyped-call]
    )


def untouched(layer: nn.Module) -> bool:
    """Return whether calling the layer is no more than its class's forward."""
    return not (
        layer._forward_hooks
        or layer._forward_pre_hooks
        or layer._backward_hooks
        or layer._backward_pre_hooks
        or "forward" in layer.__dict__  # replaced on the object, as some libraries do
    )


def idle(layer: nn.Module | None) -> bool:
    """Return whether a slot of a block does nothing."""
    return layer is None or (type(layer) is nn.Identity and untouched(layer))


def norm_obstacle(norm: nn.Module, kind: type[_BatchNorm] = nn.BatchNorm2d) -> str | None:
    """Return why no kernel can stand in for a norm, None where one can."""
    if type(norm) is not kind:
        if type(norm) is nn.SyncBatchNorm:
            return SYNC
        return f"{type(norm).__name__} is another norm than {kind.__name__}"
    own = norm._parameters  # looked at directly, as in all that runs with every layer of a model
    if own.get("weight") is None or own.get("bias") is None:
        return NO_AFFINE
    return None if untouched(norm) else HOOKS


def relu_obstacle(activation: nn.Module) -> str | None:
    """Return why no kernel can stand in for an activation, None where one can."""
    if type(activation) is not nn.ReLU:
        return NOT_RELU
    return None if untouched(activation) else HOOKS


def uses_batch(norm: _BatchNorm) -> bool:
    """Return whether the norm takes the statistics of what it is given, not its running ones."""
    own = norm._buffers
    return norm.training or own["running_mean"] is None or own["running_var"] is None


def no_modes() -> bool:
    """Return whether no mode of torch is given, and may keep, the tensors that operations make.

    Compiled code writes nothing over that a mode could hold.
    """
    if torch.compiler.is_compiling():
        return True
    stacks = torch._C._len_torch_dispatch_stack() + torch._C._len_torch_function_stack()
    return not stacks


def is_plain(tensor: Tensor | None) -> bool:
    """Return whether a tensor is no subclass with a meaning of its own."""
    return tensor is None or type(tensor) is nn.Parameter or type(tensor) is Tensor


def worth(x: Tensor, *, gate: bool) -> bool:
    """Return whether ``x`` is a plain map, large enough for a kernel to be the faster way."""
    return type(x) is Tensor and x.ndim == 4 and kernels.pays(x, gate=gate)


def takes(norm: _BatchNorm, x: Tensor, *, gate: bool, pixels: bool = False) -> bool:
    """Return whether the norm would take ``x``, and there are kernels that gain by it.

    What it would refuse it shall refuse itself, in its own words.

    Args:
        norm: a norm without an obstacle.
        x: the map, or what a tracer gives in its place.
        gate: whether there is a gate to compute.
        pixels: whether each pixel has statistics of its own, and not each channel.
    """
    if not worth(x, gate=gate):
        return False
    weight, own = norm._parameters["weight"], norm._buffers
    if not (is_plain(weight) and is_plain(norm._parameters["bias"])):
        return False
    if not (is_plain(own["running_mean"]) and is_plain(own["running_var"])):
        return False
    features = x.shape[2] * x.shape[3] if pixels else x.shape[1]
    if features != norm.num_features:
        return False
    if weight.dtype not in (torch.float32, x.dtype):  # type: ignore[union-attr]  # no obstacle
        return False
    if x.numel() == 0 or (uses_batch(norm) and x.numel() <= features):
        return False
    return kernels.runs_on(x)


def apply_norm(
    z: Tensor,
    norm: nn.BatchNorm2d,
    *,
    gate: NAMChannel | None = None,
    residual: Tensor | None = None,
    own: bool,
) -> Tensor:
    """Return ``ReLU(gate(norm(z)) + residual)``, by one kernel.

    Args:
        z: what a convolution made.
        norm: the norm behind it.
        gate: attention behind that, if any; its norm takes the batch's statistics where ``norm``
            does.
        residual: what is added, if anything.
        own: whether nobody else holds ``z``, so that it may be written over.
    """
    y = _direct(z, norm, gate, residual=residual, own=own)
    if y is not None:
        return y
    if uses_batch(norm):
        return _apply_batch(z, norm, gate, residual)
    center, rstd = _running(norm)
    bias = at_least_float32(norm.bias)
    p, slope, offset = norm.weight * rstd, None, None
    if gate is not None:
        scale, shift = gate_vectors(gate)
        gate_center, gate_rstd = _running(gate.norm)
        factor = scale * gate_rstd
        slope, offset = factor * p, factor * (bias - gate_center) + shift
    return kernels.block_tail_fixed(
        z,
        center,
        p,
        bias,
        slope=slope,
        offset=offset,
        residual=residual,
        relu=True,
        inplace=own and not _needs_gradient(z, p, bias, slope, offset, residual),
    )


def apply_gate(x: Tensor, gate: NAMChannel | NAMSpatial) -> Tensor:
    """Return what a NAM gate makes of a map that it takes, by one kernel."""
    direct = _direct(x, None, gate)
    if direct is not None:
        return direct
    norm: _BatchNorm = gate.norm
    over: kernels.Over = "channel" if isinstance(gate, NAMChannel) else "pixel"
    scale, shift = gate_vectors(gate)
    if uses_batch(norm):
        y, mean, var = kernels.norm_gate(x, scale, shift, over=over, eps=norm.eps)
        _track(norm, mean, var, x)
        return y
    center, rstd = _running(norm)
    return kernels.norm_gate_fixed(x, center, scale * rstd, shift, over=over)


def _direct(
    z: Tensor,
    norm: nn.BatchNorm2d | None,
    gate: NAMChannel | NAMSpatial | None,
    *,
    residual: Tensor | None = None,
    own: bool = False,
) -> Tensor | None:
    """Return what one call makes of the modules' own vectors, None where that does not suffice.

    The library computes the importance as published: without a gradient, of all its channels.
    """
    if gate is not None and not (gate.detach_importance or not torch.is_grad_enabled()):
        return None
    if gate is not None and getattr(gate, "denominator", None) is not None:
        return None
    first: _BatchNorm = norm if norm is not None else gate.norm  # type: ignore[union-attr]
    norms = kernels.Norms(
        norm,
        None if gate is None else gate.norm,
        "sum" if gate is None else gate.weighting,
        "pixel" if isinstance(gate, NAMSpatial) else "channel",
        norm is not None,
        not uses_batch(first),
    )
    return kernels.layer(z, norms, residual=residual, own=own)


def _apply_batch(
    z: Tensor, norm: nn.BatchNorm2d, gate: NAMChannel | None, residual: Tensor | None
) -> Tensor:
    weight, bias = at_least_float32(norm.weight), at_least_float32(norm.bias)
    if gate is None:
        out, mean, var = kernels.block_tail(
            z, weight, bias, eps=norm.eps, residual=residual, relu=True
        )
        _track(norm, mean, var, z)
        return out
    scale, shift = gate_vectors(gate)
    out, mean, var = kernels.block_tail(
        z,
        weight,
        bias,
        eps=norm.eps,
        scale=scale,
        shift=shift,
        gate_eps=gate.norm.eps,
        residual=residual,
        relu=True,
    )
    _track(norm, mean, var, z)
    # The gate's norm sees what this one returned, with statistics in closed form: it has made the
    # mean β and the variance γ²·var/(var + eps).
    with torch.no_grad():
        scaled = weight.square() * (var / (var + norm.eps))
    _track(gate.norm, bias, scaled, z)
    return out


def gate_vectors(gate: NAMChannel | NAMSpatial) -> tuple[Tensor, Tensor]:
    """Return what multiplies and what shifts the normalised map inside σ: w·γ and w·β."""
    weight = gate.importance()  # in float32 at least, so that the products are
    return weight * gate.norm.weight, weight * gate.norm.bias


def _running(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Return the running mean and 1/√(running variance + eps)."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean, (at_least_float32(norm.running_var) + norm.eps).rsqrt()


def _track(norm: _BatchNorm, mean: Tensor, var: Tensor, x: Tensor) -> None:
    if norm.training:  # in eval mode it only lacks any
        kernels.update_running(norm, mean, var, x.numel() // norm.num_features)


def _needs_gradient(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
