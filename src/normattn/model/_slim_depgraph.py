"""Torch-Pruning's dependency graph, which this module alone imports."""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from ..errors import UnsupportedModel
from ._slim_sets import WIDEST, Indices
from ._slim_standins import StandingIn


def dependency_graph(copied: StandingIn) -> Any:
    """Return the graph of a copy made by `standing_in`.

    Raises:
        UnsupportedModel: Torch-Pruning fails on it.
    """
    from torch_pruning.dependency import DependencyGraph  # type: ignore[import-untyped]

    graph = DependencyGraph()
    with torch.enable_grad(), warnings.catch_warnings(), _remembering():
        warnings.simplefilter("ignore")  # it tells of operations that it takes for elementwise ones
        try:
            graph.build_dependency(copied.module, copied.example, verbose=False)
        except Exception as error:
            if not getattr(graph, "module2node", None):
                raise UnsupportedModel(
                    "find_groups: expected a model whose channels Torch-Pruning can follow, got "
                    f"{type(error).__name__}: {error}. Slim another form of this model."
                ) from error
            _map_what_can_be(graph)
    return graph


def _map_what_can_be(graph: Any) -> None:
    """Follow indices through all operations but those on which Torch-Pruning fails.

    Those are taken for ones that keep indices as they are; where that is wrong, the trial of the
    groups tells.
    """
    from torch_pruning.dependency import index_mapping

    steps = {
        "_ConcatOp": index_mapping.update_concat_index_mapping,
        "_SplitOp": index_mapping.update_split_index_mapping,
        "_ReshapeOp": index_mapping.update_reshape_index_mapping,
        "_UnbindOp": index_mapping.update_unbind_index_mapping,
        "_ExpandOp": index_mapping.update_expand_index_mapping,
        "_SliceOp": index_mapping.update_slice_index_mapping,
    }
    for node in graph.module2node.values():
        step = steps.get(type(node.module).__name__)
        if step is not None:
            with contextlib.suppress(Exception):
                step(graph, node)


@contextlib.contextmanager
def _remembering() -> Iterator[None]:
    """Have Torch-Pruning infer the channels of each node once.

    It infers them from the nodes around, those from the ones around them, and so on, every time
    anew: with branches in branches, as in Res2Net, that does not end.
    """
    from torch_pruning.dependency import shape_infer

    names = ("infer_out_channels_recursively", "infer_in_channels_recursively")
    functions = {name: getattr(shape_infer, name) for name in names}
    for name, function in functions.items():
        setattr(shape_infer, name, _once_a_node(function))
    try:
        yield
    finally:
        for name, function in functions.items():
            setattr(shape_infer, name, function)


def _once_a_node(function: Callable[..., Any]) -> Callable[..., Any]:
    known: dict[Any, Any] = {}

    def infer(graph: Any, node: Any, recursive_depth: list[int]) -> Any:
        if node not in known:
            known[node] = function(graph, node, recursive_depth)
        return known[node]

    return infer


def mapped_by(mappings: list[Any], indices: Indices) -> tuple[Indices, Indices]:
    """Return which index becomes which on the way; one may become several, or none."""
    if all(mapping is None for mapping in mappings):
        return indices, indices
    from torch_pruning._helpers import _HybridIndex  # type: ignore[import-untyped]

    pairs = [_HybridIndex(idx=i, root_idx=i) for i in indices.tolist()]
    for mapping in mappings:
        if mapping is not None:
            try:
                pairs = mapping(pairs)
            except IndexError:  # a branch that it has lost count of; the trial will tell
                pairs = []
    known = [(pair.root_idx, pair.idx) for pair in pairs if pair.root_idx is not None]
    array = np.array(known, np.int64).reshape(-1, 2)
    return array[:, 0], array[:, 1]


def longest(node: Any) -> int:
    """Return the longest dimension of what an operation returns: no index is beyond it."""
    about = getattr(node.grad_fn, "_input_metadata", ())  # of its result, which backward is given
    return max((size for tensor in about[:1] for size in tensor.shape), default=WIDEST)
