"""Models that cannot be folded or exported, each refused with the part that stands in the way."""

from torch import nn

from ..errors import UnsupportedModel
from ._support import (
    Kind,
    _is_compiled,
    _is_lazy,
    _is_quantised,
    _is_scripted,
    _is_wrapped,
    refuse,
)

_UNFOLDABLE: tuple[Kind, ...] = (
    (_is_compiled, "a compiled one", "Give the model from before torch.compile."),
    (_is_wrapped, "one wrapped for distribution", "Give the model inside, its .module."),
    (_is_scripted, "a scripted one", "Give the eager model."),
    (_is_quantised, "a quantised one", "Give the model in floating point."),
    (_is_lazy, "one not yet initialised", "Run it on an image first."),
)


def refuse_unfoldable(who: str, model: nn.Module) -> None:
    """Refuse what is no plain eager model with weights.

    Raises:
        UnsupportedModel: names the part, and what to give instead.
    """
    refuse(who, model, _UNFOLDABLE)
    for name, tensor in model.state_dict().items():
        if tensor.is_meta:
            raise UnsupportedModel(
                f"{who}: expected a model with weights, got {name!r} on the meta device, where "
                "tensors have no values. Load the weights first."
            )
