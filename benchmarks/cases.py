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
from kernel_cases import gate, inference, others, reuse, sizes, step_cifar, step_imagenet, tail
from processor_cases import neighbours, processor
from timing import interleave, rows

SHARED = Path(__file__).parents[2] / "shared" / "data"
Rows = list[dict[str, Any]]


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


KERNEL_TESTS = ("tests/kernels", "tests/model/test_fuse.py")

#: name → (function, tests that must pass first)
CASES: dict[str, tuple[Callable[[], Rows], tuple[str, ...]]] = {
    "gate": (gate, KERNEL_TESTS),
    "tail": (tail, KERNEL_TESTS),
    "others": (others, KERNEL_TESTS),
    "inference": (inference, KERNEL_TESTS),
    "reuse": (reuse, KERNEL_TESTS),
    "sizes": (sizes, KERNEL_TESTS),
    "step-cifar": (step_cifar, KERNEL_TESTS),
    "step-imagenet": (step_imagenet, KERNEL_TESTS),
    "processor": (processor, ("tests/training/test_processor.py",)),
    "neighbours": (neighbours, ("tests/training/test_processor.py",)),
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
