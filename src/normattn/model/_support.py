"""Models that cannot be changed from the inside, or not any more."""

from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from ..errors import UnsupportedModel

#: What tells a kind of module, what it is called, and what to do instead.
Kind = tuple[Callable[[nn.Module], bool], str, str]


def refuse_unsupported(host: nn.Module) -> None:
    """Refuse a model in which a changed module would be lost, ignored or out of reach.

    Raises:
        ConfigError: this is no model at all.
        UnsupportedModel: the model or a part of it is compiled, wrapped for distribution, scripted,
            quantised or not yet initialised.
    """
    refuse("graft", host, _UNSUPPORTED)


def refuse(who: str, model: nn.Module, kinds: Iterable[Kind]) -> None:
    """Refuse a model that is none, or in which a part is of one of these kinds.

    Raises:
        UnsupportedModel: names the part, and what to do instead.
    """
    if not isinstance(model, nn.Module):
        raise UnsupportedModel(f"{who}: expected an nn.Module, got {type(model).__name__}.")
    known = tuple(kinds)
    for name, module in model.named_modules():
        for is_so, what, remedy in known:
            if is_so(module):
                at = f" at {name!r}" if name else ""
                raise UnsupportedModel(
                    f"{who}: expected a plain eager model, got {what} "
                    f"({type(module).__name__}){at}. {remedy}"
                )


def _is_compiled(module: nn.Module) -> bool:
    return _is_from(module, "torch._dynamo") or module._compiled_call_impl is not None


def _is_wrapped(module: nn.Module) -> bool:
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    return isinstance(module, wrappers) or _is_from(module, "torch.distributed")


def _is_scripted(module: nn.Module) -> bool:
    return isinstance(module, torch.jit.ScriptModule)


def _is_quantised(module: nn.Module) -> bool:
    return _is_from(module, "torch.ao.nn") or _is_from(module, "torch.nn.quantized")


def _is_lazy(module: nn.Module) -> bool:
    return isinstance(module, LazyModuleMixin) and bool(module.has_uninitialized_params())


def _is_from(module: nn.Module, package: str) -> bool:
    """Tell by the names of the classes: importing these packages costs seconds."""
    return any(f"{cls.__module__}.".startswith(f"{package}.") for cls in type(module).__mro__)


_UNSUPPORTED: tuple[Kind, ...] = (
    (_is_compiled, "a compiled one", "Graft first, then compile."),
    (_is_wrapped, "one wrapped for distribution", "Graft first, then wrap."),
    (_is_scripted, "a scripted one", "Graft the eager model, then script it."),
    (_is_quantised, "a quantised one", "Graft first, then quantise."),
    (_is_lazy, "one not yet initialised", "Run it on an image first."),
)
