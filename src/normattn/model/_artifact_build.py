"""From an artifact's page to its model: layers built without weights, then given the saved ones."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import ArtifactError, ConfigError
from .graft import Grafted, grafts, regraft
from .hosts import HostSpec

Builder = Callable[[], nn.Module]
State = Mapping[str, Tensor]

#: Methods that fill or change a tensor where it is, and nothing else.
_FILLING = {
    "add_", "bernoulli_", "clamp_", "div_", "erfinv_", "exponential_", "fill_", "log_normal_",
    "mul_", "normal_", "random_", "sub_", "uniform_", "zero_",
}  # fmt: skip


class _Unfilled(TorchFunctionMode):
    """Leave parameters without values: the saved ones take their place anyway.

    Filling them with random numbers takes ten times as long as reading the saved ones. Buffers are
    filled, as those that are no part of the state dict must be right. The meta device would do
    without memory too, but some models compute with what they build, which it cannot.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        filled = args[0] if args else given.get("tensor")  # nn.init gives it by name
        if isinstance(filled, nn.Parameter) and (
            getattr(func, "__module__", "") == "torch.nn.init"
            or getattr(func, "__name__", "") in _FILLING
        ):
            return filled
        return func(*args, **given)


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of the weights, laid out plainly: safetensors takes nothing else.

    Raises:
        ArtifactError: they are not finite, or not plain numbers.
    """
    state = {}
    for name, tensor in model.state_dict().items():
        if not isinstance(tensor, Tensor) or tensor.is_meta or tensor.is_quantized:
            what = f"{tensor.device} {tensor.dtype}" if isinstance(tensor, Tensor) else type(tensor)
            raise ArtifactError(
                f"save: expected weights that are plain numbers, got {what} at {name}. "
                "Save the model before it is quantised, and after it was given its weights."
            )
        if not tensor.isfinite().all():
            raise ArtifactError(
                f"save: expected finite weights, got NaN or infinity in {name}. Nothing was "
                "written; go back to a model from before the training diverged."
            )
        copied = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        state[name] = copied
    return state


def build(source: HostSpec | Builder, records: Sequence[Grafted], state: State) -> nn.Module:
    """Build the model that ``state`` was saved from, and load it.

    ``state`` decides the widths, and the types; its tensors become the model's own.

    Args:
        source: The plain host, or a function that returns it, with or without its attention.
        records: What was grafted into it.
        state: The saved tensors.

    Raises:
        InputError: the parts do not fit each other; RuntimeError of torch likewise.
    """
    with torch.random.fork_rng(devices=[]):
        if isinstance(source, HostSpec):
            with _Unfilled():
                model = regraft(source.build(), records)
        else:  # a stranger's function may compute with its parameters, so it gets them filled
            model = _from_builder(source, records)
    shapes = {name: tensor.shape for name, tensor in state.items()}
    fresh: dict[str, Tensor] = model.state_dict(keep_vars=True)
    if shapes != {name: tensor.shape for name, tensor in fresh.items()}:
        _resize(model, shapes, records)
        if isinstance(source, HostSpec):
            _require_outputs(model, source.num_classes)
    # Assigned and not copied, which keeps the types that the weights were saved in.
    model.load_state_dict(_tied_alike(fresh, state), assign=True)
    return model


def _from_builder(builder: Builder, records: Sequence[Grafted]) -> nn.Module:
    model = builder()
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"builder: expected a function that returns a model, got {type(model).__name__}. "
            "Pass a function without arguments, such as lambda: MyModel(num_classes=10)."
        )
    there = {record.site: record.mechanism for record in grafts(model)}
    if not there:
        return regraft(model, records)
    saved = {record.site: record.mechanism for record in records}
    if there != saved:
        raise ConfigError(
            f"builder: expected a model with no attention, or with that which was saved ({saved}), "
            f"got {there}. Return the model as it was before graft."
        )
    return model


def _resize(model: nn.Module, shapes: Mapping[str, torch.Size], records: Sequence[Grafted]) -> None:
    from ._widths import resize

    kept = {r.site: r.kept for r in records if r.kept is not None}
    resize(model, shapes, kept)


def _require_outputs(model: nn.Module, count: int) -> None:
    """Refuse a classifier of another width: slimming leaves it as it is, so somebody changed it."""
    find: Any = getattr(model, "get_classifier", None)
    classifier = find() if find else getattr(model, "fc", None)
    weight = getattr(classifier, "weight", None)
    if not isinstance(weight, Tensor) or len(weight) == count:
        return
    names = [name for name, module in model.named_modules() if module is classifier]
    raise ArtifactError(
        f"artifact: expected {count} outputs, as normattn.host was asked for, got {len(weight)} "
        f"at {names[0]}.weight. Build the host with the number of classes that it should have."
    )


def _tied_alike(fresh: State, state: State) -> dict[str, Tensor]:
    """Give names that share a parameter in the ``fresh`` model one parameter of ``state``, too."""
    names: dict[int, str] = {}
    given = dict(state)
    for name, tensor in fresh.items():
        first = names.setdefault(id(tensor), name)
        if first != name and first in given and isinstance(tensor, nn.Parameter):
            if not isinstance(given[first], nn.Parameter):
                given[first] = nn.Parameter(given[first], tensor.requires_grad)
            given[name] = given[first]
    return given
