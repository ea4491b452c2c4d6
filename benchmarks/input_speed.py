"""Augmented 32×32 images a second on one thread: gather, pad, crop and flip, as in training.

Run: ``python benchmarks/input_speed.py``. Target: at least 50,000 a second on one core.
"""

import platform
import statistics
import time

import torch

from normattn.data import train_batches
from normattn.data.splits import MemorySplit

IMAGES, SIZE, BATCH, EPOCHS = 50_000, 32, 128, 5


def main() -> None:
    """Print the median over a few epochs of as many images as CIFAR has."""
    torch.set_num_threads(1)
    images = torch.randint(0, 256, (IMAGES, 3, SIZE, SIZE), dtype=torch.uint8)
    split = MemorySplit(images, torch.zeros(IMAGES, dtype=torch.int64))
    print(f"torch {torch.__version__}, {platform.processor() or platform.machine()}, one thread")
    for augment in ("none", "pad-crop", "pad-crop-flip"):
        rates = [_rate(split, augment, epoch) for epoch in range(EPOCHS + 1)][1:]  # first: warm-up
        print(f"{augment:14} {statistics.median(rates):>10,.0f} images/s")


def _rate(split: MemorySplit, augment: str, epoch: int) -> float:
    start = time.perf_counter()
    batches = train_batches(split, batch_size=BATCH, seed=0, epoch=epoch, augment=augment)
    count = sum(len(batch.labels) for batch in batches)
    return count / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
