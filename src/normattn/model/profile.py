"""What a model costs: parameters, multiply-adds, elementwise work, memory, and measured time.

How each number is counted, and how far the papers' columns come out, is told in docs/numbers.md.
"""

import contextlib
import copy
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ..errors import ConfigError, InputError, UnsupportedModel
from ._counters import Alive, Elementwise, Kept, Products
from .fuse import plain

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Profile:
    """The cost of one forward pass, counted and not timed, so the same on every machine.

    A fused model is counted in its plain form. (The bytes agree to about one in a hundred: batch
    norms keep a little more on some devices.)

    Args:
        parameters: numbers learned, each counted once.
        macs: multiply-adds of the convolutions and matrix products.
        paper_macs: ``macs`` plus two for each element that passes a BatchNorm, which is what the
            papers print as FLOPs.
        elementwise: operations of all pointwise kernels, reductions, pooling and other norms;
            nothing of it is in ``paper_macs``.
        training_bytes: what autograd keeps of the activations for the backward pass.
        inference_bytes: the peak of all activations that are alive at once without gradients.
        input_size: ``(C, H, W)``.
        batch: images in the pass that was counted; all but ``parameters`` grow with it.
    """

    parameters: int
    macs: int
    paper_macs: int
    elementwise: int
    training_bytes: int
    inference_bytes: int
    input_size: tuple[int, int, int]
    batch: int


@dataclass(frozen=True)
class Latency:
    """Seconds for one forward pass of a batch, over the rounds of one interleaved run.

    Args:
        median: the middle of the times.
        p20: a fifth of the times are shorter.
        p80: a fifth of the times are longer.
        ratio: the median over the rounds of this model's time divided by the first model's.
    """

    median: float
    p20: float
    p80: float
    ratio: float


def profile(model: nn.Module, input_size: int | Sequence[int], *, batch: int = 1) -> Profile:
    """Count the cost of one forward pass in evaluation mode; the model is left as it was.

    Args:
        model: any model that takes a batch of images.
        input_size: ``(C, H, W)``, ``(H, W)`` or one number for a square; without C, it is that of
            the model's first convolution.
        batch: images in the pass.

    Raises:
        ConfigError: ``input_size`` or ``batch`` is no size.
        UnsupportedModel: the model cannot take such an input.

    Example:
        >>> from normattn import host
        >>> profile(host("resnet20", 10), 32).parameters
        269722
    """
    size = _image_size("profile", model, input_size)
    x = _images("profile", model, size, batch)
    own = [*model.parameters(), *model.buffers(), x]
    products, elementwise, kept, alive = Products(), Elementwise(), Kept(own), Alive(own)
    with plain(model), _evaluating([model]), _naming_the_input("profile", x):
        with torch.enable_grad(), products.counter, elementwise, kept.watching():
            model(x)
        # Not inference mode, which would hide the kernels inside composite operations.
        with torch.no_grad(), alive:
            model(x)
    return Profile(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        macs=products.macs,
        paper_macs=products.macs + products.batch_norm,
        elementwise=elementwise.operations,
        training_bytes=kept.bytes,
        inference_bytes=alive.peak,
        input_size=size,
        batch=batch,
    )


def latency(
    models: Mapping[str, nn.Module],
    input_size: int | Sequence[int],
    *,
    batch: int = 1,
    rounds: int = 30,
    threads: int = 1,
    device: str | torch.device = "cpu",
) -> dict[str, Latency]:
    """Time the models against each other, interleaved, in evaluation mode without gradients.

    Every round times each model once, in an order drawn anew (a clock that drifts or a neighbour
    that wakes up hits all alike), after each has been warmed up. The seconds hold for this machine
    at this hour; compare the ratios.

    Args:
        models: label and model; ratios are to the first. A model that lives on another device is
            copied there; all are left as they were.
        input_size: as in `profile`.
        batch: images in a pass.
        rounds: how often each model is timed.
        threads: PyTorch's threads on the CPU while timing.
        device: where to time.

    Raises:
        ConfigError: no model, a number below 1, no such device, or ``input_size`` is no size.
        UnsupportedModel: a model cannot take such an input.
    """
    _check_count("latency", "rounds", rounds)
    _check_count("latency", "threads", threads)
    if not models:
        raise ConfigError("latency: expected at least one model, got none. Name what to time.")
    place = _device(device)
    moved = {label: _on(model, place) for label, model in models.items()}
    inputs = {
        label: _images("latency", model, _image_size("latency", model, input_size), batch)
        for label, model in moved.items()
    }
    order = random.Random(0)
    times: dict[str, list[float]] = {label: [] for label in moved}
    with _evaluating(moved.values()), _threads(threads), torch.inference_mode():
        for label, model in moved.items():
            with _naming_the_input("latency", inputs[label]):
                for _ in range(3):
                    _seconds(model, inputs[label])
        for _ in range(rounds):
            for label in order.sample(list(moved), len(moved)):
                times[label].append(_seconds(moved[label], inputs[label]))
    first = np.array(next(iter(times.values())))
    return {label: _summary(np.array(seconds), first) for label, seconds in times.items()}


def _seconds(model: nn.Module, x: Tensor) -> float:
    """Time one pass; a GPU returns before it has finished, so it is waited for."""
    _wait(x)
    start = time.perf_counter()
    model(x)
    _wait(x)
    return time.perf_counter() - start


def _wait(x: Tensor) -> None:
    if x.device.type != "cpu":
        torch.accelerator.synchronize(x.device)


def _summary(seconds: Array, first: Array) -> Latency:
    p20, median, p80 = (float(q) for q in np.quantile(seconds, (0.2, 0.5, 0.8)))
    return Latency(median, p20, p80, ratio=float(np.median(seconds / first)))


@contextlib.contextmanager
def _evaluating(models: Iterable[nn.Module]) -> Iterator[None]:
    """Evaluation mode while inside; afterwards each submodule is in the mode it was in."""
    modules = list(chain.from_iterable(model.modules() for model in models))
    modes = [module.training for module in modules]
    try:
        for module in modules:
            module.training = False
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _naming_the_input(who: str, x: Tensor) -> Iterator[None]:
    """Turn what a model raises on an input that it cannot take into one sentence."""
    try:
        yield
    except (InputError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise UnsupportedModel(
            f"{who}: expected a model that takes a batch of shape {tuple(x.shape)}, got "
            f"{type(error).__name__}: {error}. Check input_size."
        ) from error


def _image_size(
    who: str, model: nn.Module, input_size: int | Sequence[int]
) -> tuple[int, int, int]:
    sizes = tuple(input_size) if isinstance(input_size, Sequence) else (input_size, input_size)
    if len(sizes) not in (2, 3):
        raise ConfigError(
            f"{who}: expected input_size to be a number, (H, W) or (C, H, W), got {input_size!r}."
        )
    for size in sizes:
        _check_count(who, "each number of input_size", size)
    *channels, height, width = sizes
    if not channels:
        convs = (module for module in model.modules() if isinstance(module, nn.Conv2d))
        channels = [conv.in_channels for conv in islice(convs, 1)] or [3]
    return channels[0], height, width


def _images(who: str, model: nn.Module, size: tuple[int, int, int], batch: int) -> Tensor:
    """Return a batch of zeros, of the type and on the device of the model's first parameter."""
    _check_count(who, "batch", batch)
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    return torch.zeros(batch, *size, dtype=like.dtype, device=like.device)


def _on(model: nn.Module, device: torch.device) -> nn.Module:
    first = next(model.parameters(), None)
    if first is None or first.device == device:
        return model
    return copy.deepcopy(model).to(device)


def _device(device: str | torch.device) -> torch.device:
    try:
        return torch.empty(0, device=device).device  # with its index: 'cuda' is 'cuda:0'
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"latency: expected a device of this machine, got {str(device)!r} "
            f"({str(error).splitlines()[0]}). Use 'cpu'."
        ) from error


def _check_count(who: str, name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{who}: expected {name} to be an integer >= 1, got {value!r}.")
