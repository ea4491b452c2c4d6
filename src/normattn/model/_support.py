"""Models that cannot be changed from the inside, or not any more."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from ..errors import UnsupportedModel


def refuse_unsupported(host: nn.Module) -> None:
    """Refuse a model in which a changed module would be lost, ignored or out of reach.

    Raises:
        ConfigError: this is no model at all.
        UnsupportedModel: the model or a part of it is compiled, wrapped for distribution, scripted,
            quantised or not yet initialised.
    """
    if not isinstance(host, nn.Module):
        raise UnsupportedModel(f"graft: expected an nn.Module, got {type(host).__name__}.")
    for name, module in host.named_modules():
        for is_so, what, remedy in _UNSUPPORTED:
            if is_so(module):
                at = f" at {name!r}" if name else ""
                raise UnsupportedModel(
                    f"graft: expected a plain eager model, got {what} "
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


_UNSUPPORTED: tuple[tuple[Callable[[nn.Module], bool], str, str], ...] = (
    (_is_compiled, "a compiled one", "Graft first, then compile."),
    (_is_wrapped, "one wrapped for distribution", "Graft first, then wrap."),
    (_is_scripted, "a scripted one", "Graft the eager model, then script it."),
    (_is_quantised, "a quantised one", "Graft first, then quantise."),
    (_is_lazy, "one not yet initialised", "Run it on an image first."),
)
