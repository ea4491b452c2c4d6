"""How an op of ours becomes one of torch's: its schema, its fake kernel, its derivative."""

from collections.abc import Callable
from typing import Any

import torch
from torch.library import Library

from ..errors import InputError

# The bare registration: an op made by `torch.library.custom_op` does the same, but passes through
# more Python on each call. It lasts as long as this object.
_LIBRARY: Any = Library("normattn", "FRAGMENT")  # type: ignore[no-untyped-call]


def define(schema: str, run: Callable[..., Any], fake: Callable[..., Any]) -> Any:
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
    _LIBRARY.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"normattn::{name}", fake, lib=_LIBRARY)
    return getattr(torch.ops.normattn, name).default


def differentiate(name: str, save: Callable[..., Any], backward: Callable[..., Any]) -> None:
    """Give op ``name`` its derivative, and ``name_backward`` a refusal to be differentiated."""

    def refuse(ctx: Any, *grads: Any) -> None:
        raise InputError(
            f"{name}: expected to be differentiated once, got a second derivative (create_graph). "
            "Take the plain form for that: normattn.unfuse(model)."
        )

    register = torch.library.register_autograd
    register(f"normattn::{name}", backward, setup_context=save, lib=_LIBRARY)
    register(f"normattn::{name}_backward", refuse, lib=_LIBRARY)
