"""What slimming refuses before it looks any closer."""

import torch
from torch import Tensor, nn

from ..errors import ConfigError, UnsupportedModel
from ._support import _UNSUPPORTED, refuse

_QUANTISED = {torch.qint8, torch.quint8, torch.qint32, torch.int8, torch.uint8}


def check_model(who: str, model: nn.Module, example_input: Tensor | None = None) -> None:
    """Refuse a model whose layers cannot be cut, and an example that is no batch of images.

    Raises:
        ConfigError: the example is no floating-point batch ``(B, C, H, W)``.
        UnsupportedModel: the model is none, or compiled, wrapped, scripted, quantised or on the
            meta device.
    """
    kinds = (
        (is_so, what, what_to_do.replace("Graft", "Slim"))
        for is_so, what, what_to_do in _UNSUPPORTED
    )
    refuse(who, model, kinds)
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            raise UnsupportedModel(
                f"{who}: expected a model with weights, got one on the meta device (at {name!r}). "
                "Load the weights first."
            )
        if parameter.dtype in _QUANTISED:
            raise UnsupportedModel(
                f"{who}: expected a plain eager model, got a quantised one (at {name!r}). "
                "Slim first, then quantise."
            )
    if example_input is not None:
        _check_example(who, example_input)


def _check_example(who: str, example_input: Tensor) -> None:
    if (
        not isinstance(example_input, Tensor)
        or example_input.ndim != 4
        or not example_input.is_floating_point()
        or example_input.numel() == 0
    ):
        got = (
            f"{example_input.dtype} of shape {tuple(example_input.shape)}"
            if isinstance(example_input, Tensor)
            else type(example_input).__name__
        )
        raise ConfigError(
            f"{who}: expected example_input to be a batch of images (B, C, H, W) of floats, got "
            f"{got}."
        )
