"""Checks that mechanisms share: each refuses a bad option or input in one clear sentence."""

import math
from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import ConfigError, InputError, unknown


def check_choice(who: str, option: str, value: object, known: Iterable[str]) -> None:
    """Refuse a ``value`` that is none of the ``known`` words."""
    if value not in (choices := list(known)):
        raise ConfigError(unknown(who, option, str(value), choices))


def check_flag(who: str, option: str, value: object) -> None:
    """Refuse a ``value`` that is neither True nor False; 0, 1 and "false" are mistakes."""
    if not isinstance(value, bool):
        raise ConfigError(f"{who}: expected {option} to be True or False, got {value!r}.")


def check_count(who: str, option: str, value: object) -> None:
    """Refuse a ``value`` that is no integer of at least one."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{who}: expected {option} to be an integer >= 1, got {value!r}.")


def check_positive(who: str, option: str, value: object) -> None:
    """Refuse a ``value`` that is no finite number above zero."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and math.isfinite(value) and value > 0):  # type: ignore[arg-type,operator]
        raise ConfigError(f"{who}: expected {option} to be a finite number > 0, got {value!r}.")


def check_kernel_size(who: str, value: object) -> None:
    """Refuse a kernel that has no centre, which would change the map's size."""
    check_count(who, "kernel_size", value)
    if value % 2 == 0:  # type: ignore[operator]
        raise ConfigError(f"{who}: expected kernel_size to be odd, got {value}.")


def hidden_channels(who: str, channels: int, reduction: int) -> int:
    """Return ``channels // reduction``, refusing a reduction that leaves no channel at all."""
    check_count(who, "reduction", reduction)
    if channels < reduction:
        raise ConfigError(
            f"{who}: expected a reduction of at most channels ({channels}), got {reduction}. "
            f"Choose reduction <= {channels}, or leave this site out."
        )
    return channels // reduction


def lacks_variance(norm: nn.Module, x: Tensor) -> bool:
    """Return whether batch norm ``norm`` would see a single value per channel of ``x`` (dim 1).

    A SyncBatchNorm counts the other processes' values too, and a norm that uses no batch statistics
    (in eval mode, or replaced by another kind) has nothing to count.
    """
    if not isinstance(norm, _BatchNorm) or isinstance(norm, nn.SyncBatchNorm) or not norm.training:
        return False
    return x.numel() <= x.shape[1]


def check_enough_values(who: str, norm: nn.Module, x: Tensor) -> None:
    """Refuse a training batch that has a single value for each channel of ``norm``."""
    if lacks_variance(norm, x):
        raise InputError(
            f"{who}: expected more than one value per batch-norm channel in training, got "
            f"{tuple(x.shape)} to normalise. Use a larger batch or feature map (for instance, drop "
            "the last incomplete batch), or call eval()."
        )
