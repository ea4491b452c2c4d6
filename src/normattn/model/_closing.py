"""The norms right in front of an addition: all their scales at zero, and a residual branch is shut.

They are found where sites are, in one eager forward, but also behind attention and in networks of
tokens, and on both sides of an addition that joins two branches.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UnsupportedModel
from ._discovery import Node, Sum, Trace, _hooked, _quietly
from .fuse import plain


class _Sums(Trace):
    """What one forward did, its additions of equal shapes noted whatever their layout."""

    def _note_sum(self, args: Any) -> None:
        nodes = [self._node(a) for a in args[:2] if isinstance(a, Tensor)]
        if len(nodes) < 2 or not self._stack:
            return
        left, right = nodes
        if left is not None and right is not None and left.shape == right.shape:
            frame = self._stack[-1]
            self.sums.append(Sum(frame.module, frame.nodes, left, right))


def closing_modules(
    model: nn.Module, example_input: Tensor, is_norm: Callable[[nn.Module], bool]
) -> set[nn.Module]:
    """Return the norms that nothing learned stands between and an addition.

    Raises:
        UnsupportedModel: the model does not run on the example, or nothing can be seen in it.
    """
    record = _Sums()
    try:
        with plain(model), _quietly(model), _hooked(model, record), torch.no_grad(), record:
            model(example_input)
    except Exception as error:
        raise UnsupportedModel(
            f"sparsity: expected {type(model).__name__} to run on an input of shape "
            f"{tuple(example_input.shape)}, to find the norms in front of additions, got "
            f"{type(error).__name__}: {error} Give another input, or penalise all norms "
            "(sparsity_closing=True)."
        ) from error
    norms = [module for module in model.modules() if is_norm(module)]
    if norms and not any(norm in record.outputs for norm in norms):
        raise UnsupportedModel(
            f"sparsity: expected a plain eager model, got {type(model).__name__}, of whose "
            f"{len(norms)} norms none was seen at work. Find the norms before compiling or "
            "scripting, or penalise all of them (sparsity_closing=True)."
        )
    return {norm for added in record.sums for norm in _in_front(added, is_norm)}


def _in_front(added: Sum, is_norm: Callable[[nn.Module], bool]) -> Iterator[nn.Module]:
    sides = (added.left, added.right)
    for side, other in (sides, sides[::-1]):
        # What the other side was made of is the shortcut itself, on which nothing closes.
        if side not in other.ancestors(until=added.inputs):
            yield from _last_norms(side, added.inputs, is_norm)


def _last_norms(
    end: Node, start: frozenset[Node], is_norm: Callable[[nn.Module], bool]
) -> Iterator[nn.Module]:
    """Go back from ``end`` to the first norms on each way, not behind a learned layer."""
    seen: set[Node] = set()
    ahead = [end]
    while ahead:
        node = ahead.pop()
        if node in seen or node in start:
            continue
        seen.add(node)
        norms = [module for module in node.emitters if is_norm(module)]
        yield from norms
        learned = node.depth > max((parent.depth for parent in node.parents), default=node.depth)
        if not norms and not learned:
            ahead += node.parents
