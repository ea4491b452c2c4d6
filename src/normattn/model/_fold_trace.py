"""Which module feeds which, and nothing else: seen in one eager forward, without a symbolic trace.

A factor can move from a module into the one before it only where nobody else sees what lies
between them: no other operation, no output of the model, no second call of either.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import UnsupportedModel
from ._discovery import _hooked, _tensors

# A tensor in one of its states: an operation in place makes another one of it.
_State = tuple[int, int]


@dataclass(frozen=True)
class Feed:
    """A module's input: which module made it, and whether this module alone reads it."""

    maker: nn.Module | None
    alone: bool
    shape: torch.Size


class FoldTrace(TorchFunctionMode):
    """What one forward of a model says about who reads whose output."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: Counter[nn.Module] = Counter()
        self._inputs: dict[nn.Module, tuple[_State, torch.Size] | None] = {}
        self._makers: dict[_State, nn.Module] = {}
        self._readers: defaultdict[_State, list[frozenset[nn.Module]]] = defaultdict(list)
        self._returned: set[_State] = set()
        self._stack: list[nn.Module] = []
        self._alive: list[Tensor] = []  # an id is a tensor's own only while it lives

    def feed(self, module: nn.Module) -> Feed | None:
        """Return what feeds a module that ran once with one tensor; None for any other."""
        given = self._inputs.get(module)
        if given is None or self._calls[module] != 1:
            return None
        state, shape = given
        maker = self._makers.get(state)
        if maker is not None and self._calls[maker] != 1:
            maker = None
        readers = self._readers[state]
        alone = state not in self._returned and all(module in stack for stack in readers)
        return Feed(maker, alone, shape)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        read = [_state(tensor) for tensor in _tensors((args, kwargs))]
        result = func(*args, **kwargs)
        made = list(_tensors(result))
        if made:  # asking for a shape or a type reads nothing
            stack = frozenset(self._stack)
            # Nor does what hands a tensor on as it is, such as a conversion to the type it has.
            for state in set(read) - {_state(tensor) for tensor in made}:
                self._readers[state].append(stack)
            self._alive += made
        return result

    def enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        given = list(_tensors((args, kwargs)))
        self._alive += given
        self._calls[module] += 1
        self._inputs[module] = (_state(given[0]), given[0].shape) if len(given) == 1 else None
        self._stack.append(module)

    def leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        self._stack.pop()
        made = list(_tensors(output))
        self._alive += made
        if not self._stack:
            self._returned.update(_state(tensor) for tensor in made)
        # The innermost module leaves first, and before any that only hands its output on.
        if isinstance(output, Tensor):
            self._makers.setdefault(_state(output), module)


def trace_feeds(model: nn.Module, images: Tensor) -> FoldTrace:
    """Run a model of ours, in eval mode, and say who feeds whom.

    Raises:
        UnsupportedModel: the model does not run on such images.
    """
    record = FoldTrace()
    try:
        with _hooked(model, record), torch.no_grad(), record:
            model(images)
    except Exception as error:
        raise UnsupportedModel(
            f"fold: expected {type(model).__name__} to run on an input of shape "
            f"{tuple(images.shape)}, got {type(error).__name__}: {error} Give its size as "
            "input_size=(H, W), or real images as data."
        ) from error
    return record


def _state(tensor: Tensor) -> _State:
    return id(tensor), tensor._version
