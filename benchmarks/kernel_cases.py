"""The kernels against what else there is, one operation and one whole model at a time.

Everything runs on the GPU where there is one, else on the CPU with torch's threads. Operations are
timed as multiples of a clone of x, whole models as multiples of plain eager PyTorch without
attention.
"""

import copy
import gc
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from timing import interleave, rows
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional

import normattn
from normattn.kernels import cpu
from normattn.model._fused_steps import apply_norm

Rows = list[dict[str, Any]]
Provider = Callable[[], Any]

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
LAYOUTS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
SHAPES = ((32, 256, 32, 32), (8, 2048, 7, 7))
#: From what fits into a core's first cache to what fits into none.
SIZES = (
    (2, 64, 8, 8),
    (8, 64, 8, 8),
    (8, 128, 16, 16),
    (8, 64, 32, 32),
    (16, 128, 32, 32),
    (32, 256, 32, 32),
)
#: Reads and writes of an element that no way of computing it can save: see kernels/*/README.md.
ACCESSES = {"gate": 8, "tail": 11, "inference": 3}
ROUNDS = 15


class LiteralNAM(nn.Module):
    """NAM's channel gate, step by step as published: two permutes to put C last and back."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        scale = self.norm.weight.detach().abs()
        y = y.permute(0, 2, 3, 1).contiguous()
        y = (scale / scale.sum()) * y
        y = y.permute(0, 3, 1, 2).contiguous()
        return torch.sigmoid(y) * x


class Tail(nn.Module):
    """The end of a residual block: the last norm, attention or none, addition, ReLU."""

    def __init__(self, channels: int, attention: nn.Module | None) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.attention = attention or nn.Identity()

    def forward(self, x: Tensor, shortcut: Tensor) -> Tensor:
        return functional.relu_(self.attention(self.norm(x)) + shortcut)


class FusedTail(Tail):
    """The same by the kernels, as a fused block calls them."""

    def forward(self, x: Tensor, shortcut: Tensor) -> Tensor:
        gate: Any = None if isinstance(self.attention, nn.Identity) else self.attention
        return apply_norm(x, self.norm, gate=gate, residual=shortcut, own=True)


def gate() -> Rows:
    """NAM's channel gate, forward + backward, in multiples of a clone of x."""
    modules: dict[str, Callable[[int], nn.Module]] = {
        "authors' form": LiteralNAM,
        "eager formula": lambda c: normattn.create("nam-channel", c),
        "torch.compile": lambda c: torch.compile(normattn.create("nam-channel", c), fullgraph=True),
        "normattn": lambda c: normattn.fuse(normattn.create("nam-channel", c), strict=True),
        "BatchNorm alone": nn.BatchNorm2d,
    }
    return _operations("gate", modules, shortcut=False)


def tail() -> Rows:
    """BatchNorm + NAM + shortcut + ReLU, forward + backward, in multiples of a clone of x."""

    def nam(c: int) -> nn.Module:
        return normattn.create("nam-channel", c)

    modules: dict[str, Callable[[int], nn.Module]] = {
        "authors' form": lambda c: Tail(c, LiteralNAM(c)),
        "eager formula": lambda c: Tail(c, nam(c)),
        "torch.compile": lambda c: torch.compile(Tail(c, nam(c)), fullgraph=True),
        "normattn": lambda c: FusedTail(c, nam(c)),
        "no attention, eager": lambda c: Tail(c, None),
        "no attention, normattn": lambda c: FusedTail(c, None),
    }
    return _operations("tail", modules, shortcut=True)


def others() -> Rows:
    """EAN and NAM's pixel gate, forward + backward, in multiples of a clone of x."""
    results: Rows = []
    for name in ("ean", "nam-spatial"):
        options = {"size": SHAPES[0][2:]} if name == "nam-spatial" else {}
        modules: dict[str, Callable[[int], nn.Module]] = {
            "eager formula": lambda c, n=name, o=options: normattn.create(n, c, **o),
            "normattn": lambda c, n=name, o=options: normattn.fuse(
                normattn.create(n, c, **o), strict=True
            ),
        }
        results += _operations(name, modules, shortcut=False, shapes=SHAPES[:1])
    return results


def inference() -> Rows:
    """NAM's gate + shortcut + ReLU without gradients, in multiples of a clone of x."""
    results: Rows = []
    for shape in SHAPES[:1]:
        for layout in LAYOUTS:
            x, shortcut, y = (_map(shape, layout) for _ in range(3))
            gate = normattn.create("nam-channel", shape[1]).to(DEVICE).eval()
            fused = FusedTail(shape[1], copy.deepcopy(gate)).to(DEVICE).eval()

            def eager(y: Tensor = y, gate: nn.Module = gate, r: Tensor = shortcut) -> Tensor:
                return functional.relu_(gate(y) + r)

            def ours(y: Tensor = y, tail: nn.Module = fused, r: Tensor = shortcut) -> Tensor:
                return tail(y, r)

            def plain(y: Tensor = y, r: Tensor = shortcut) -> Tensor:
                return functional.relu_(y.add_(r))

            providers = {
                "clone of x": partial(torch.clone, x),
                "copy of x": partial(torch.empty_like(x).copy_, x),
                "eager formula": eager,
                "normattn, norm too, in place": ours,
                "no attention: add + ReLU in place": plain,
            }
            with torch.no_grad():
                found = interleave(providers, ROUNDS)
            timed = rows(found, "clone of x", op="inference", layout=layout, shape=_name(shape))
            results += [*timed, _floor(timed, ACCESSES["inference"])]
    return results


def sizes() -> Rows:
    """Norm + ReLU, and the tail with NAM, by the kernels against eager, by the size of the map."""
    results: Rows = []
    for layout in LAYOUTS:
        for shape in SIZES:
            x, upstream, r = (_map(shape, layout) for _ in range(3))
            for each in (x, r):
                each.requires_grad_()
            attended = Tail(shape[1], normattn.create("nam-channel", shape[1])).to(DEVICE)
            fused = FusedTail(shape[1], copy.deepcopy(attended.attention)).to(DEVICE)
            norm = nn.BatchNorm2d(shape[1]).to(DEVICE)

            def step(
                function: Callable[..., Tensor],
                *inputs: Tensor,
                upstream: Tensor = upstream,
                leaves: tuple[Tensor, ...] = (x, r),
            ) -> None:
                for leaf in (*leaves, *attended.parameters(), *fused.parameters()):  # noqa: B023
                    leaf.grad = None
                function(*inputs).backward(upstream)

            def eager_norm(y: Tensor, norm: nn.Module = norm) -> Tensor:
                return functional.relu_(norm(y))

            def kernel_norm(y: Tensor, norm: Any = norm) -> Tensor:
                return apply_norm(y, norm, own=True)

            providers = {
                "norm + ReLU, eager": partial(step, eager_norm, x),
                "norm + ReLU, normattn": partial(step, kernel_norm, x),
                "tail with NAM, eager": partial(step, attended, x, r),
                "tail with NAM, normattn": partial(step, fused, x, r),
            }
            found = interleave(providers, ROUNDS)
            for kind in ("norm + ReLU", "tail with NAM"):
                pair = {name: times for name, times in found.items() if name.startswith(kind)}
                labels = {"op": kind, "layout": layout, "shape": _name(shape)}
                results += rows(pair, f"{kind}, eager", **labels)
    return results


def reuse() -> Rows:
    """What memory that could be written over in training would bring: the tail with NAM on the CPU.

    The residual's gradient over the gradient that comes in, and the output over a shortcut. We do
    neither: autograd, a hook or a retained gradient may still hold either of them.
    """
    results: Rows = []
    for layout in LAYOUTS:
        z, dy, residual = (_map(SHAPES[0], layout).cpu() for _ in range(3))
        v = torch.rand(SHAPES[0][1])
        how = {"over": "channel", "eps": 1e-5, "gate_eps": 1e-5, "relu": True}
        vectors = {"weight": v, "bias": v, "scale": v, "shift": v}
        forward = partial(cpu.forward, z, residual=residual, **how, **vectors)
        out, mean, var = forward()
        found = {"mean": mean, "var": var, "residual": True}
        backward = partial(cpu.backward, dy, z, out, **found, **how, **vectors)

        def over(field: str, source: str, function: Provider) -> None:
            """Call with one pointer of the task set to another."""
            run = cpu.LIBRARY.run

            def aliased(task: Any, **options: Any) -> None:
                setattr(task, field, getattr(task, source))
                run(task, **options)

            cpu.LIBRARY.run = aliased
            try:
                function()
            finally:
                cpu.LIBRARY.run = run

        providers = {
            "forward": forward,
            "forward, output over the shortcut": partial(over, "out", "residual", forward),
            "backward": backward,
            "backward, residual's gradient over dy": partial(over, "dresidual", "dy", backward),
        }
        times = interleave(providers, ROUNDS)
        for base in ("forward", "backward"):
            pair = {name: t for name, t in times.items() if name.startswith(base)}
            results += rows(pair, base, layout=layout, shape=_name(SHAPES[0]))
    return results


def step_cifar() -> Rows:
    """A training step of R50-C100 (32 px, batch 8), against plain eager PyTorch."""
    return _steps("resnet50", batch=8, size=32, classes=100, stem="cifar", compiled=True)


def step_imagenet() -> Rows:
    """A training step of ResNet-50 (224 px, batch 2), against plain eager PyTorch.

    On a CPU without torch.compile, whose compilation takes longer than everything else here.
    """
    return _steps(
        "resnet50", batch=2, size=224, classes=1000, stem="imagenet", compiled=DEVICE.type == "cuda"
    )


def _operations(
    case: str,
    modules: dict[str, Callable[[int], nn.Module]],
    *,
    shortcut: bool,
    shapes: tuple[tuple[int, ...], ...] = SHAPES,
) -> Rows:
    results: Rows = []
    for shape in shapes:
        for layout in LAYOUTS:
            x, upstream, copied = (_map(shape, layout) for _ in range(3))
            inputs = [x] + ([_map(shape, layout)] if shortcut else [])
            for each in inputs:
                each.requires_grad_()

            def step(
                module: nn.Module, inputs: list[Tensor] = inputs, upstream: Tensor = upstream
            ) -> None:
                for leaf in (*inputs, *module.parameters()):
                    leaf.grad = None
                module(*inputs).backward(upstream)

            torch.compiler.reset()
            providers: dict[str, Provider] = {"clone of x": x.detach().clone}
            providers["copy of x"] = partial(copied.copy_, x.detach())
            saved = {}
            for name, make in modules.items():
                module = make(shape[1]).to(DEVICE)
                providers[name] = partial(step, module)
                saved[name] = round(_saved(module, *inputs) / x.numel(), 2)
            labels = {"op": case, "layout": layout, "shape": _name(shape)}
            found = rows(interleave(providers, ROUNDS), "clone of x", **labels)
            for row in found:
                row["saved_bytes_an_element"] = saved.get(row["provider"])
            if case in ACCESSES:
                found.append(_floor(found, ACCESSES[case]))
            results += found
    return results


def _floor(found: Rows, accesses: int) -> dict[str, Any]:
    """Return the time that the bytes which must move take at the bandwidth of a copy."""
    copied = next(row for row in found if row["provider"] == "copy of x")
    factor = accesses / 2
    return copied | {
        "provider": f"floor: {accesses} accesses",
        "median_ms": round(copied["median_ms"] * factor, 3),
        "p20_ms": round(copied["p20_ms"] * factor, 3),
        "p80_ms": round(copied["p80_ms"] * factor, 3),
        "ratio": round(copied["ratio"] * factor, 3),
    }


def _steps(name: str, *, batch: int, size: int, classes: int, stem: Any, compiled: bool) -> Rows:
    torch.manual_seed(0)
    plain = normattn.host(name, classes, stem=stem).to(DEVICE)
    attended = normattn.graft(copy.deepcopy(plain), "nam-channel", input_size=size)
    literal = normattn.graft(copy.deepcopy(plain), LiteralNAM, input_size=size).to(DEVICE)
    models = {
        "no attention, eager": plain,
        "no attention, normattn": normattn.fuse(copy.deepcopy(plain), strict=True),
        "authors' form": literal,
        "eager formula": attended,
        "normattn": normattn.fuse(copy.deepcopy(attended), strict=True),
    }
    if compiled:  # minutes for each layout
        models["no attention, torch.compile"] = torch.compile(copy.deepcopy(plain))
        models["torch.compile"] = torch.compile(copy.deepcopy(attended))
    types = (torch.float32, torch.bfloat16) if DEVICE.type == "cuda" else (torch.float32,)
    target = torch.randint(0, classes, (batch,), device=DEVICE)
    results: Rows = []
    for dtype in types:
        for layout, order in LAYOUTS.items():
            x = torch.randn(batch, 3, size, size, device=DEVICE).to(memory_format=order)

            def loss(model: nn.Module, x: Tensor = x, dtype: torch.dtype = dtype) -> Tensor:
                with torch.autocast(DEVICE.type, dtype, enabled=dtype != torch.float32):
                    return functional.cross_entropy(model(x), target)

            def step(model: nn.Module, loss: Callable[[nn.Module], Tensor] = loss) -> None:
                model.zero_grad(set_to_none=True)
                loss(model).backward()

            for model in models.values():
                model.to(memory_format=order)
            torch.compiler.reset()
            saved = {label: _saved(partial(loss, model)) for label, model in models.items()}
            providers = {label: partial(step, model) for label, model in models.items()}
            labels = {
                "layout": layout,
                "shape": f"batch {batch}, {size} px, {str(dtype).removeprefix('torch.')}",
            }
            found = rows(interleave(providers, 9), "no attention, eager", **labels)
            for row in found:
                share = saved[row["provider"]] / saved["no attention, eager"]
                row["saved_activations"] = round(share, 4)
            results += found
    return results


def _saved(function: Callable[..., Tensor], *inputs: Tensor) -> int:
    """Return the bytes that a forward keeps for its backward, each storage once, weights not."""
    own = {p.untyped_storage().data_ptr() for p in getattr(function, "parameters", list)()}
    if isinstance(function, partial):
        own = {p.untyped_storage().data_ptr() for p in function.args[0].parameters()}
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = function(*inputs)
    total = sum(seen.values())
    del kept
    gc.collect()
    return total


def _map(shape: tuple[int, ...], layout: str) -> Tensor:
    return torch.randn(shape, device=DEVICE).to(memory_format=LAYOUTS[layout])


def _name(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
