"""What the kernels of a forward pass compute and hold, counted as they are called."""

import contextlib
import math
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

aten = torch.ops.aten

_BATCH_NORMS = (
    aten.native_batch_norm,
    aten.cudnn_batch_norm,
    aten.miopen_batch_norm,
    aten._native_batch_norm_legit,
    aten._native_batch_norm_legit_no_training,
    aten._batch_norm_with_update,
    aten._batch_norm_no_update,
)

#: Pointwise by PyTorch's own tag, but they move data and compute nothing.
_MOVES = (aten.clone, aten.copy, aten.copy_, aten._to_copy, aten.fill, aten.fill_, aten.zero_)

#: Operations for each element of the first argument, for the kernels that are not pointwise.
_PER_INPUT_ELEMENT = {
    **dict.fromkeys((aten.sum, aten.mean, aten.prod, aten.amax, aten.amin, aten.cumsum), 1),
    **dict.fromkeys((aten.linalg_vector_norm, aten.norm, aten.argmax, aten.argmin), 1),
    **dict.fromkeys((aten.avg_pool2d, aten._adaptive_avg_pool2d), 1),
    **dict.fromkeys((aten.max_pool2d_with_indices, aten.adaptive_max_pool2d), 1),
    **dict.fromkeys((aten.var, aten.var_mean, aten.std, aten.std_mean), 2),
    **dict.fromkeys((aten.native_group_norm, aten.native_layer_norm), 2),
    **dict.fromkeys((aten._softmax, aten._log_softmax), 2),
}


class Products:
    """Multiply-adds of convolutions and matrix products, and two for each batch-norm element.

    PyTorch's own counter does the work; it needs to be told about batch norms only.
    """

    def __init__(self) -> None:
        self.counter = FlopCounterMode(
            display=False, custom_mapping=dict.fromkeys(_BATCH_NORMS, _batch_norm)
        )

    @property
    def batch_norm(self) -> int:
        return sum(n for kernel, n in self._counts().items() if kernel in _BATCH_NORMS)

    @property
    def macs(self) -> int:
        # PyTorch counts a multiply-add as two operations.
        return sum(n for kernel, n in self._counts().items() if kernel not in _BATCH_NORMS) // 2

    def _counts(self) -> dict[Any, int]:
        return self.counter.get_flop_counts().get("Global", {})


class Elementwise(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's class is untyped
    """Operations of the kernels that are neither products nor batch norms.

    One for each output element of a pointwise kernel; for each input element one of a reduction or
    pooling and two of a norm or softmax; none for moving data.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        kernel = func.overloadpacket
        if kernel in _PER_INPUT_ELEMENT:
            self.operations += _PER_INPUT_ELEMENT[kernel] * args[0].numel()
        elif torch.Tag.pointwise in func.tags and kernel not in _MOVES:
            self.operations += sum(tensor.numel() for tensor in _tensors(result))
        return result


class Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's class is untyped
    """The peak of the bytes that are alive at once, without those of the tensors in ``own``.

    What a kernel uses inside itself is not seen.
    """

    def __init__(self, own: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = self._bytes = 0
        self._known = {_storage(tensor) for tensor in own}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            if (key := _storage(tensor)) not in self._known:
                storage = tensor.untyped_storage()
                self._known.add(key)
                self._bytes += storage.nbytes()
                weakref.finalize(storage, self._freed, key, storage.nbytes())
        self.peak = max(self.peak, self._bytes)
        return result

    def _freed(self, key: int, nbytes: int) -> None:
        self._known.discard(key)
        self._bytes -= nbytes


class Kept:
    """The bytes that autograd keeps for the backward pass, without those of ``own``."""

    def __init__(self, own: Iterable[Tensor]) -> None:
        self._own = {_storage(tensor) for tensor in own}
        self._kept: dict[int, Tensor] = {}

    @property
    def bytes(self) -> int:
        kept = (tensor for key, tensor in self._kept.items() if key not in self._own)
        return sum(tensor.untyped_storage().nbytes() for tensor in kept)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Follow what is saved while inside."""
        with torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor):
            yield

    def _keep(self, tensor: Tensor) -> Tensor:
        # The reference that stays here keeps the storage, and so its key, from being used again.
        self._kept.setdefault(_storage(tensor), tensor)
        return tensor


def _batch_norm(x_shape: Sequence[int], *args: Any, **kwargs: Any) -> int:
    return 2 * math.prod(x_shape)


def _tensors(tree: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


def _storage(tensor: Tensor) -> int:
    """Name the memory behind a tensor; views share it. Good while the memory is alive."""
    return id(tensor.untyped_storage())
