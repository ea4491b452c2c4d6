"""How an op of ours becomes one of torch's: its schema, its fake kernel, its derivative."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.library import Library

from ..errors import InputError

# The bare registration: an op made by `torch.library.custom_op` does the same, but passes through
# more Python on each call. It lasts as long as this object.
_LIBRARY: Any = Library("normattn", "FRAGMENT")  # type: ignore[no-untyped-call]
_PLAIN = (Tensor, torch.nn.Parameter)


class Op:
    """An op of torch, which in plain eager code is called past torch's dispatcher.

    That and the derivative that is registered with it are Python of torch's, which takes longer
    than the kernel on a small map. Whoever watches or traces operations sees the op.

    Args:
        overload: The registered op.
        run: What computes it.
    """

    def __init__(self, overload: Any, run: Callable[..., Any]) -> None:
        self.overload = overload
        self._name = overload.name().partition("::")[2]
        self._run = run
        self._function: Any = None

    def differentiate(self, save: Callable[..., Any], backward: Callable[..., Any]) -> None:
        """Make the derivative that `register_autograd` gets one of the direct call, too."""
        run = self._run

        class Direct(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, *args: Any) -> Any:
                output = run(*args)
                save(ctx, args, output)
                ctx.set_materialize_grads(False)  # statistics get no gradients, nor zeros for them
                return output

            @staticmethod
            def backward(ctx: Any, *grads: Any) -> Any:
                if grads[0] is None:
                    return (None,) * len(ctx.needs_input_grad)
                return backward(ctx, *grads)

        self._function = Direct

    def __call__(self, *args: Any) -> Any:
        _refuse_tangents(self._name, args)
        if not alone(args):
            return self.overload(*args)
        if not (torch.is_grad_enabled() and any(_wants(a) for a in args)):
            return self._run(*args)
        if self._function is None:  # a derivative, to be differentiated again: torch refuses
            return self.overload(*args)
        return self._function.apply(*args)


def alone(args: tuple[Any, ...]) -> bool:
    """Return whether nobody watches and all tensors are plain ones, with their own values."""
    return (
        not torch.compiler.is_compiling()  # first: a compiler follows what stands behind it
        and not torch._C._is_tracing()
        and not torch._C._autograd._profiler_enabled()
        and not torch._C._len_torch_dispatch_stack()
        and not torch._C._len_torch_function_stack()
        and not torch._C._are_functorch_transforms_active()
        and all(type(a) in _PLAIN and not a.is_neg() for a in args if isinstance(a, Tensor))
    )


def _refuse_tangents(name: str, args: tuple[Any, ...]) -> None:
    """Refuse duals of forward-mode differentiation, whose tangents a kernel would drop unsaid."""
    if torch.compiler.is_compiling() or forward_ad._current_level < 0:
        return
    unpack: Any = forward_ad.unpack_dual
    for a in args:
        if isinstance(a, Tensor) and unpack(a).tangent is not None:
            raise InputError(
                f"{name}: expected tensors without tangents, got forward-mode differentiation. "
                "Take the plain form for that: normattn.unfuse(model)."
            )


def _wants(value: object) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


_OPS: dict[str, Op] = {}


def define(schema: str, run: Callable[..., Any], fake: Callable[..., Any]) -> Op:
    """Register an op and return what calls it.

    Args:
        schema: Its name, arguments and results, as torch writes them.
        run: Computes it, on any device, from tensors that record nothing.
        fake: Returns tensors like the results, without values.
    """
    name = schema.partition("(")[0]
    # The results are laid out in memory as the arguments are, which a compiler so must not change.
    tags = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides)
    _LIBRARY.define(schema, tags=tags)

    def dispatched(*args: Any) -> Any:
        _refuse_tangents(name, args)
        return run(*args)

    _LIBRARY.impl(name, dispatched, "CompositeExplicitAutograd")
    torch.library.register_fake(f"normattn::{name}", fake, lib=_LIBRARY)
    _OPS[name] = Op(getattr(torch.ops.normattn, name).default, run)
    return _OPS[name]


def differentiate(name: str, save: Callable[..., Any], backward: Callable[..., Any]) -> None:
    """Give op ``name`` its derivative, and ``name_backward`` a refusal to be differentiated."""

    def refuse(ctx: Any, *grads: Any) -> None:
        raise InputError(
            f"{name}: expected to be differentiated once, got a second derivative (create_graph). "
            "Take the plain form for that: normattn.unfuse(model)."
        )

    _OPS[name].differentiate(save, backward)
    register = torch.library.register_autograd
    register(f"normattn::{name}", backward, setup_context=save, lib=_LIBRARY)
    register(f"normattn::{name}_backward", refuse, lib=_LIBRARY)
