"""What makes training on a CPU fast or slow: layout, type, memory, threads, and busy neighbours."""

import json
import os
import random
import subprocess
import sys
from statistics import median
from typing import Any

Rows = list[dict[str, Any]]

_STEPS = """
import json, sys, time
import torch
from torch.nn import functional
import normattn
from normattn.training.processor import keep_memory
given = json.loads(sys.argv[1])
if given["keep"]:
    assert keep_memory()
if given["threads"]:
    torch.set_num_threads(given["threads"])
torch.manual_seed(0)
order = torch.channels_last if given["channels_last"] else torch.contiguous_format
model = normattn.host("resnet20", 100).to(memory_format=order)
if given["fuse"]:
    normattn.fuse(model)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
x = torch.randn(128, 3, 32, 32).to(memory_format=order)
target = torch.randint(0, 100, (128,))
def step():
    optimizer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=given["bfloat16"]):
        logits = model(x)
    functional.cross_entropy(logits.float(), target).backward()
    optimizer.step()
step(); step()
start, steps = time.perf_counter(), 0
while time.perf_counter() - start < given["seconds"]:
    step()
    steps += 1
print(128 * steps / (time.perf_counter() - start))
"""


def processor() -> Rows:
    """Training images a second of resnet20 (batch 128, no attention) by how the CPU is used."""
    best = {"bfloat16": True, "channels_last": True, "keep": True, "fuse": False, "threads": None}
    providers = {
        "NCHW float32": best | {"bfloat16": False, "channels_last": False},
        "channels_last float32": best | {"bfloat16": False},
        "NCHW bfloat16": best | {"channels_last": False},
        "channels_last bfloat16": best,
        "the same, memory given back each time": best | {"keep": False},
        "the same, one thread": best | {"threads": 1},
        "the same, kernels": best | {"fuse": True},
        "channels_last float32, kernels": best | {"bfloat16": False, "fuse": True},
    }
    return _rows(providers, neighbours=0)


def neighbours() -> Rows:
    """The same beside two other busy programs: threads that wait for each other against one."""
    best = {"bfloat16": True, "channels_last": True, "keep": True, "fuse": False}
    counts = {f"{n} thread{'s' * (n > 1)}": best | {"threads": n} for n in (1, os.cpu_count() or 1)}
    return _rows(counts, neighbours=2)


def _rows(providers: dict[str, dict[str, Any]], neighbours: int) -> Rows:
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(neighbours)]
    order, names = random.Random(0), list(providers)
    found: dict[str, list[float]] = {name: [] for name in names}
    try:
        for _ in range(3):
            order.shuffle(names)
            for name in names:
                given = json.dumps(providers[name] | {"seconds": 3})
                # Without what run.py sets for itself: a program of a user's own has none of it.
                env = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
                done = subprocess.run(
                    [sys.executable, "-c", _STEPS, given],
                    env=env,
                    capture_output=True,
                    text=True,
                    check=True,
                )
                found[name].append(float(done.stdout))
    finally:
        for each in busy:
            each.kill()
    return [
        {
            "provider": name,
            "neighbours": neighbours,
            "images_per_second": round(median(rates)),
            "slowest": round(min(rates)),
            "fastest": round(max(rates)),
            "n": len(rates),
        }
        for name, rates in found.items()
    ]
