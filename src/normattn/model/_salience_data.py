"""Criteria that look at images: what removing a channel would do to the loss; what gates let by."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import ConfigError
from ._salience_layers import gathered, layers_of, per_channel

if TYPE_CHECKING:
    from ._groups import Group

Batches = Iterable[tuple[Tensor, Tensor]]
Found = dict[str, Tensor | str]


def taylor(model: nn.Module, groups: Sequence["Group"], data: Batches, seed: int) -> Found:
    """Return the first-order estimate of what removing each channel does to the loss.

    ::

        |Σ w · ∂L/∂w|,    over all weights that read the channel; mean over the images' batches

    To remove a channel is to set these weights to zero, wherever its values are made, so the sum
    is the linear term of the change. It equals |Σ activation · gradient| at the layers that read
    the channel: the criterion of Molchanov et al., with a group of coupled channels as the unit.

    Reference:
        Molchanov, Mallya, Tyree, Frosio, Kautz, "Importance Estimation for Neural Network
        Pruning", CVPR 2019, arXiv:1906.10771, eq. 8. Theirs is squared before the mean over
        batches.
    """
    readers = {m.layer: layer for g in groups for m, layer in layers_of(model, g, "in")}
    weights = {n: w for n, x in readers.items() if isinstance(w := x.weight, nn.Parameter)}
    totals: dict[str, Tensor] = {}
    seen = 0
    for inputs, labels in _batches(model, data):
        with _differentiable(weights.values()):
            loss = functional.cross_entropy(_logits(model, inputs, labels), labels)
            slopes = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        sums = {
            name: per_channel(readers[name], "in", (weight.detach() * slope).float())
            for (name, weight), slope in zip(weights.items(), slopes, strict=True)
            if slope is not None
        }
        for group in groups:
            members = [m for m in group.members if m.role == "in" and m.layer in sums]
            if members:
                change = torch.stack([gathered(sums[m.layer], m) for m in members]).sum(0).abs()
                totals[group.name] = totals.get(group.name, 0) + change * len(labels)
        seen += len(labels)
    reason = "no layer with weights that the loss depends on reads it"
    return {g.name: totals[g.name] / seen if g.name in totals else reason for g in groups}


def gate(model: nn.Module, groups: Sequence["Group"], data: Batches, seed: int) -> Found:
    """Return the mean of what gates let by, |x · gate|, summed over each group's gates."""
    gates = {m.layer: layer for g in groups for m, layer in layers_of(model, g, "gate")}
    totals: dict[str, Tensor] = {}
    seen = 0

    def watch(name: str) -> Any:
        def add(module: nn.Module, arguments: Any, output: Tensor) -> None:
            sums = output.detach().float().abs().mean((2, 3)).sum(0)
            totals[name] = totals.get(name, 0) + sums

        return add

    with contextlib.ExitStack() as stack:
        for name, layer in gates.items():
            stack.enter_context(_hooked(layer, watch(name)))
        for inputs, labels in _batches(model, data) if gates else ():
            with torch.no_grad():
                _logits(model, inputs, labels)
            seen += len(labels)
    found: Found = {}
    for group in groups:
        members = [m for m in group.members if m.role == "gate" and m.layer in totals]
        each = [gathered(totals[m.layer] / seen, m) for m in members]
        found[group.name] = torch.stack(each).sum(0) if each else "no attention gates it"
    return found


def _batches(model: nn.Module, data: Batches) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images and labels on the model's device; refuse what is none."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    count = 0
    for batch in data:
        if not (
            isinstance(batch, tuple | list) and len(batch) == 2 and all(map(_is_tensor, batch))
        ):
            raise _no_batch(f"a {type(batch).__name__}")
        inputs, labels = batch
        if not inputs.is_floating_point() or inputs.ndim != 4 or labels.shape != inputs.shape[:1]:
            raise _no_batch(
                f"{inputs.dtype} {tuple(inputs.shape)} with labels {tuple(labels.shape)}"
            )
        count += len(labels)
        yield inputs.to(device), labels.to(device)
    if not count:
        raise _no_batch("no batch at all")


def _no_batch(got: str) -> ConfigError:
    return ConfigError(
        "salience: expected data that yield (inputs, labels), the inputs normalised floats "
        f"(B, C, H, W) and the labels (B,), got {got}. See normattn.data.to_float."
    )


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


def _logits(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    logits = model(inputs)
    classes = logits.shape[1] if isinstance(logits, Tensor) and logits.ndim == 2 else None
    if classes is None or int(labels.max()) >= classes or int(labels.min()) < 0:
        raise ConfigError(
            f"salience: expected labels of the model's {classes or 'classes, one output each'}, "
            f"got labels from {int(labels.min())} to {int(labels.max())}. Give the data that the "
            "model was trained on."
        )
    return logits.float()  # type: ignore[no-any-return]


@contextlib.contextmanager
def _differentiable(weights: Iterable[nn.Parameter]) -> Iterator[None]:
    """Let gradients reach these weights, frozen ones and under `torch.no_grad` too."""
    frozen = [weight for weight in weights if not weight.requires_grad]
    with torch.inference_mode(False), torch.enable_grad():
        for weight in frozen:
            weight.requires_grad_(True)
        try:
            yield
        finally:
            for weight in frozen:
                weight.requires_grad_(False)


@contextlib.contextmanager
def _hooked(layer: nn.Module, hook: Any) -> Iterator[None]:
    handle = layer.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
