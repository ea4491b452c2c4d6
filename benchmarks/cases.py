"""The cases that `run.py` times; each names the tests that must pass before it may speak."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timing import interleave, rows
from torch import Tensor, nn

import normattn

SHARED = Path(__file__).parents[2] / "shared" / "data"
Rows = list[dict[str, Any]]


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


def gate() -> Rows:
    """NAM's channel gate, forward and backward, against the literal published form."""
    results: Rows = []
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(32, 256, 32, 32).to(memory_format=layout).requires_grad_()
        upstream = torch.randn(32, 256, 32, 32).to(memory_format=layout)

        def step(module: nn.Module, x: Tensor = x, upstream: Tensor = upstream) -> None:
            x.grad = None
            module(x).backward(upstream)

        modules: dict[str, nn.Module] = {
            "literal published form": LiteralNAM(256),
            "normattn NAMChannel": normattn.create("nam-channel", 256),
            "BatchNorm2d alone": nn.BatchNorm2d(256),
        }
        providers = {label: partial(step, module) for label, module in modules.items()}
        name = "channels_last" if layout is torch.channels_last else "NCHW"
        results += rows(
            interleave(providers, 15), "literal published form", layout=name, shape="32x256x32x32"
        )
    return results


def start() -> Rows:
    """`import normattn` with its main verbs against `import torch, timm`; `--help`'s own time."""
    programs = {
        "import torch, timm": "import torch, timm",
        "import normattn (main verbs)": "from normattn import create, graft, host, profile",
        "python -c pass": "pass",
        "normattn --help": "import sys; sys.argv = ['normattn', '--help']; "
        "from normattn.cli import main; main()",
    }

    def run(code: str) -> None:
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)

    providers = {name: partial(run, code) for name, code in programs.items()}
    return rows(interleave(providers, 7), "import torch, timm")


def epoch() -> Rows:
    """The share of a resnet20 epoch on CIFAR-100 outside forward, backward and optimizer step."""
    from normattn.training import Job, recipe, run_job

    shard = next(iter(sorted((SHARED / "cifar100").glob("train-*.parquet"))), None)
    if shard is None:
        raise SystemExit("epoch: expected CIFAR-100 shards in ../shared/data/cifar100, found none.")
    with tempfile.TemporaryDirectory() as folder:
        job = Job(
            data=f"parquet:{shard.parent}",
            train_limit=10_000,
            host="resnet20",
            mechanism="none",
            recipe=recipe("quick", epochs=3),
            seed=0,
        )
        events: list[dict[str, Any]] = []
        began = time.perf_counter()
        run_job(job, Path(folder) / "epoch", progress=events.append)
        total = time.perf_counter() - began
    results = []
    for event in events:
        if event["event"] == "epoch":
            outside = event["seconds"] - event["seconds_compute"]
            results.append(
                {
                    "provider": f"epoch {event['epoch']}",
                    "seconds": round(event["seconds"], 3),
                    "outside_share": round(outside / event["seconds"], 4),
                    "images_per_second": round(event["images_per_second"], 1),
                }
            )
    return [*results, {"provider": "whole job", "seconds": round(total, 2)}]


def images() -> Rows:
    """Augmented 32×32 images a second on one thread: gather, pad, crop and flip, as in training."""
    from normattn.data import train_batches
    from normattn.data.splits import MemorySplit

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pixels = torch.randint(0, 256, (50_000, 3, 32, 32), dtype=torch.uint8)
    split = MemorySplit(pixels, torch.zeros(len(pixels), dtype=torch.int64))

    def run(augment: str) -> None:
        for _ in train_batches(split, batch_size=128, seed=0, epoch=0, augment=augment):
            pass

    augments = ("none", "pad-crop", "pad-crop-flip")
    providers = {augment: partial(run, augment) for augment in augments}
    results = rows(interleave(providers, 7), "none")
    torch.set_num_threads(threads)
    used = len(pixels) // 128 * 128
    return [{**row, "images_per_second": round(used / row["median_ms"] * 1e3)} for row in results]


#: name → (function, tests that must pass first)
CASES: dict[str, tuple[Callable[[], Rows], tuple[str, ...]]] = {
    "gate": (gate, ("tests/attention/test_nam.py",)),
    "start": (start, ("tests/test_architecture.py",)),
    "epoch": (epoch, ("tests/training",)),
    "images": (images, ("tests/data",)),
}

PINNED = "glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=8589934592"


def pin_allocator() -> None:
    """Restart this program with glibc told to keep its memory.

    Tensors over 32 MB are otherwise mapped and page-faulted at every operation, which measures the
    kernel and not the code.
    """
    if sys.platform == "linux" and os.environ.get("GLIBC_TUNABLES") != PINNED:
        os.environ["GLIBC_TUNABLES"] = PINNED
        os.execv(sys.executable, [sys.executable, *sys.argv])
