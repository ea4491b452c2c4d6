"""What happens inside a model, seen from one eager forward: no symbolic trace is needed.

A torch-function mode sees every operation on tensors and module hooks see which module emits which
tensor. Together they give the graph in which the ends of residual branches can be told.
"""

import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import UnsupportedModel
from ._insertion import mark

if TYPE_CHECKING:
    from ._fold_trace import FoldTrace

_ADDS = {
    torch.add,
    Tensor.add,
    Tensor.add_,
    Tensor.__add__,
    Tensor.__iadd__,
    Tensor.__radd__,
}
_CONVOLUTIONS = {"conv1d", "conv2d", "conv3d", "conv_transpose2d"}
_LEARNED = {*_CONVOLUTIONS, "linear"}
_FEATURES_LAST = {"linear", "layer_norm"}
_REORDERS = {"permute", "transpose", "movedim", "moveaxis", "swapaxes", "reshape", "view"}


@dataclass(eq=False)
class Node:
    """A tensor of the forward: where it came from and which modules returned it, inner first."""

    shape: torch.Size
    parents: tuple["Node", ...]
    order: int
    depth: int  # convolutions and linear layers between the input and here, along the longest way
    features_last: bool  # (B, H, W, C), as a linear layer leaves it
    emitters: list[nn.Module] = field(default_factory=list)

    def comes_from(self, other: "Node") -> bool:
        return self is not other and any(node is other for node in self.ancestors())

    def ancestors(self, until: frozenset["Node"] = frozenset()) -> set["Node"]:
        """Return this node and all before it, not looking behind ``until``."""
        seen: set[Node] = set()
        ahead = [self]
        while ahead:
            node = ahead.pop()
            if node not in seen:
                seen.add(node)
                ahead += [] if node in until else node.parents
        return seen


@dataclass
class Sum:
    """An addition of two maps of one shape, inside the forward of ``owner``."""

    owner: nn.Module
    inputs: frozenset[Node]  # what the owner was given
    left: Node
    right: Node


@dataclass
class _Frame:
    module: nn.Module
    inputs: list[tuple[Tensor, int]]  # with the version: an in-place operation raises it
    nodes: frozenset[Node]


class Trace(TorchFunctionMode):
    """What one forward of a model did."""

    def __init__(self) -> None:
        super().__init__()
        self.sums: list[Sum] = []
        self.calls: Counter[nn.Module] = Counter()
        self.outputs: dict[nn.Module, Node] = {}  # of modules that return one tensor
        self.idle: set[nn.Module] = set()  # returned what they were given, untouched
        self.many_inputs: set[nn.Module] = set()  # called with more than one argument
        # Weak references: an id is a tensor's own only while it lives, and maps can be large.
        self._nodes: dict[int, tuple[weakref.ref[Tensor], Node]] = {}
        self._count = 0
        self._stack: list[_Frame] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = list(_tensors((args, kwargs)))
        parents = tuple(node for t in given if (node := self._node(t)) is not None)
        before = {id(t): t._version for t in given}
        if func in _ADDS:
            self._note_sum(args)
        result = func(*args, **kwargs)
        if parents:
            name = getattr(func, "__name__", "")
            for tensor in _tensors(result):
                if before.get(id(tensor)) != tensor._version:
                    last = _keeps_features_last(name, tensor, given[0], parents)
                    self._add(tensor, parents, last, deeper=name in _LEARNED)
        return result

    def _node(self, tensor: Tensor) -> Node | None:
        alive, node = self._nodes.get(id(tensor), (None, None))
        return node if alive is not None and alive() is tensor else None

    def _add(
        self,
        tensor: Tensor,
        parents: tuple[Node, ...],
        features_last: bool = False,
        *,
        deeper: bool = False,
    ) -> Node:
        self._count += 1
        depth = max((p.depth for p in parents), default=0) + deeper
        node = Node(tensor.shape, parents, self._count, depth, features_last)
        self._nodes[id(tensor)] = (weakref.ref(tensor), node)
        return node

    def _note_sum(self, args: Any) -> None:
        nodes = [self._node(a) for a in args[:2] if isinstance(a, Tensor)]
        if len(nodes) < 2 or not self._stack:
            return
        left, right = nodes
        if left is None or right is None or left.shape != right.shape or len(left.shape) != 4:
            return
        if not (left.features_last or right.features_last):
            frame = self._stack[-1]
            self.sums.append(Sum(frame.module, frame.nodes, left, right))

    def enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        given = list(_tensors((args, kwargs)))
        if len(args) != 1 or kwargs:
            self.many_inputs.add(module)
        if not self._stack:
            for tensor in given:
                self._add(tensor, ())
        nodes = frozenset(node for t in given if (node := self._node(t)) is not None)
        self._stack.append(_Frame(module, [(t, t._version) for t in given], nodes))

    def leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        frame = self._stack.pop()
        self.calls[module] += 1
        if not isinstance(output, Tensor):
            return
        node = self._node(output)
        if mark(module) and len(frame.nodes) == 1:
            # Attention is transparent: a host that carries some looks like the plain one.
            (node,) = frame.nodes
            self._nodes[id(output)] = (weakref.ref(output), node)
        elif node is None:  # made by something that the mode does not see, such as a custom op
            node = self._add(output, tuple(frame.nodes))
        node.emitters.append(module)
        self.outputs[module] = node
        if any(t is output and version == output._version for t, version in frame.inputs):
            self.idle.add(module)


def trace(host: nn.Module, size: tuple[int, int]) -> Trace:
    """Run ``host`` once on an image of zeros, in eval mode, and leave it as it was.

    Raises:
        UnsupportedModel: the host does not run on such an input.
    """
    convolutions = (m for m in host.modules() if isinstance(m, nn.Conv2d))
    first = next((m.in_channels for m in convolutions), 3)
    failures = []
    for channels in dict.fromkeys((first, 3)):  # the first convolution may not see the image
        try:
            return _run(host, channels, size)
        except Exception as error:
            failures.append(error)
    raise UnsupportedModel(
        f"graft: expected {type(host).__name__} to run on an input of shape "
        f"{(1, first, *size)}, got {type(failures[0]).__name__}: {failures[0]} Give its size as "
        "input_size=(H, W)."
    ) from failures[0]


def _run(host: nn.Module, channels: int, size: tuple[int, int]) -> Trace:
    parameter = next((p for p in host.parameters() if p.is_floating_point()), torch.empty(0))
    image = torch.zeros(1, channels, *size, dtype=parameter.dtype, device=parameter.device)
    record = Trace()
    with _quietly(host), _hooked(host, record), torch.no_grad(), record:
        host(image)
    return record


@contextmanager
def _quietly(host: nn.Module) -> Iterator[None]:
    """Evaluation mode, and the flags and random states as before afterwards."""
    training = {module: module.training for module in host.modules()}
    devices = {p.device for p in host.parameters() if p.device.type == "cuda"}
    try:
        # Flags are set one by one: a model's own train() may do more than that.
        for module in training:
            module.training = False
        with torch.random.fork_rng([device.index or 0 for device in devices]):
            yield
    finally:
        for module, flag in training.items():
            module.training = flag


@contextmanager
def _hooked(host: nn.Module, record: "Trace | FoldTrace") -> Iterator[None]:
    handles = []
    try:
        for module in host.modules():
            handles.append(module.register_forward_pre_hook(record.enter, with_kwargs=True))
            handles.append(module.register_forward_hook(record.leave, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _keeps_features_last(
    function: str, result: Tensor, source: Tensor, parents: tuple[Node, ...]
) -> bool:
    """Say whether a map is (B, H, W, C) after a function, as in Swin, and so no map for a gate."""
    if function in _FEATURES_LAST and result.ndim == 4:
        return True
    if function in _CONVOLUTIONS or not any(p.features_last for p in parents):
        return False
    # Windows of (B, H, W, C) keep C last; a permutation to (B, C, H, W) changes the stride.
    ends = [(t.shape[-1:], t.stride()[-1:]) for t in (result, source)]
    return function not in _REORDERS or ends[0] == ends[1]


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
