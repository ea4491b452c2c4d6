"""Models that cannot be folded or exported, each refused with the part that stands in the way."""

from collections.abc import Callable

from torch import nn

from ..errors import UnsupportedModel
from ._support import _is_compiled, _is_lazy, _is_quantised, _is_scripted, _is_wrapped

_UNFOLDABLE: tuple[tuple[Callable[[nn.Module], bool], str, str], ...] = (
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
    if not isinstance(model, nn.Module):
        raise UnsupportedModel(f"{who}: expected an nn.Module, got {type(model).__name__}.")
    for name, module in model.named_modules():
        for is_so, what, remedy in _UNFOLDABLE:
            if is_so(module):
                at = f" at {name!r}" if name else ""
                raise UnsupportedModel(
                    f"{who}: expected a plain eager model, got {what} "
                    f"({type(module).__name__}){at}. {remedy}"
                )
    for name, tensor in model.state_dict().items():
        if tensor.is_meta:
            raise UnsupportedModel(
                f"{who}: expected a model with weights, got {name!r} on the meta device, where "
                "tensors have no values. Load the weights first."
            )
