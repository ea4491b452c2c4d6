"""What the ops refuse, by name, before a kernel reads memory that is not there."""

from typing import get_args

from torch import Tensor

from ..errors import InputError, unknown
from ._layout import Over
from ._precision import wide_type


def check(
    who: str, x: Tensor, over: str = "channel", *maps: Tensor | None, **vectors: Tensor | None
) -> None:
    """Refuse a map that is none, other maps that differ from it, and vectors that do not fit it."""
    if x.ndim != 4:
        raise InputError(
            f"{who}: expected a map of shape (B, C, H, W), got {tuple(x.shape)}. Reshape it; one "
            "vector an image is a map of 1×1."
        )
    if not x.is_floating_point():
        raise InputError(
            f"{who}: expected a map of floating-point numbers, got {x.dtype}. Convert it, for "
            "instance with .float()."
        )
    if over not in get_args(Over):
        raise InputError(unknown(who, "over", over, get_args(Over)))
    for other in maps:
        if other is not None:
            _check_twin(who, x, other)
    length = x.shape[2] * x.shape[3] if over == "pixel" else x.shape[1]
    wanted, device = wide_type(x), x.device
    for name, vector in vectors.items():
        if vector is not None:
            own = over == "instance" and name in ("mean", "var")
            shape = (length * x.shape[0] if own else length,)
            # One line for what nearly always holds: this runs with every layer of a model.
            if vector.dtype != wanted or vector.shape != shape or vector.device != device:
                _refuse_vector(who, x, name, vector, shape)


def check_pair(who: str, **vectors: Tensor | None) -> None:
    """Refuse a gate of which only one half was given."""
    if len({vector is None for vector in vectors.values()}) > 1:
        missing = next(name for name, vector in vectors.items() if vector is None)
        raise InputError(
            f"{who}: expected {' and '.join(vectors)} together, got no {missing}. Give both for a "
            "gate, neither for none."
        )


def check_count(who: str, x: Tensor, over: str) -> None:
    """Refuse batch statistics of fewer than two values; an image's own may be of a single one."""
    if over == "instance":
        return
    count = x.shape[0] * (x.shape[1] if over == "pixel" else x.shape[2] * x.shape[3])
    if count < 2:
        raise InputError(
            f"{who}: expected more than one value per {over} in training, got {tuple(x.shape)} to "
            "normalise. Use a larger batch or feature map (for instance, drop the last incomplete "
            "batch), or call eval()."
        )


def _check_twin(who: str, x: Tensor, other: Tensor) -> None:
    if other.shape != x.shape:
        expected, got = f"shape {tuple(x.shape)}", str(tuple(other.shape))
    elif other.dtype != x.dtype:
        expected, got = str(x.dtype), str(other.dtype)
    elif other.device != x.device:
        expected, got = f"device {x.device}", str(other.device)
    else:
        return
    raise InputError(
        f"{who}: expected a residual (or gradient) like the map, of {expected}, got {got}. Bring "
        "both branches to one shape, type and device before they are added."
    )


def _refuse_vector(who: str, x: Tensor, name: str, vector: Tensor, shape: tuple[int]) -> None:
    if vector.device != x.device:
        raise InputError(
            f"{who}: expected {name} on {x.device}, where the map is, got {vector.device}. Move "
            "the module or the map."
        )
    if vector.shape != shape:
        raise InputError(
            f"{who}: expected {name} to be of shape {shape}, for a map of {tuple(x.shape)}, "
            f"got {tuple(vector.shape)}. Take the vectors of the norm that was built for this map."
        )
    raise InputError(
        f"{who}: expected {name} in {wide_type(x)}, in which a map of {x.dtype} is computed, got "
        f"{vector.dtype}. Convert it."
    )
