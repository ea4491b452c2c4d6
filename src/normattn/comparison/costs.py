"""What the mechanisms cost, and whether each can be built at all, before and beside the training."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..data import ImageData, open_data
from ..model import latency, profile
from ..training import build, choose_device
from .protocol import Protocol

BATCHES = (1, 32)
_ROUNDS = 15


def check(protocol: Protocol, device: str) -> None:
    """Open the data and build every mechanism's model, so that bad input is refused right away.

    Raises:
        InputError: the data, the host, a mechanism, a site or the device cannot be had.
    """
    choose_device(device)
    _models(protocol, _open(protocol))


def measure(protocol: Protocol, device: str) -> dict[str, Any]:
    """Return the content of ``profile.json``: counts, and latencies from one interleaved run.

    What cannot be measured is left out and said in ``notes``.
    """
    data = _open(protocol)
    models = _models(protocol, data)
    input_size = (data.channels, *data.size)
    place = choose_device(device)
    notes: list[str] = []
    counts = {label: _count(model, input_size, label, notes) for label, model in models.items()}
    timed = {str(batch): _time(models, input_size, batch, place, notes) for batch in BATCHES}
    return {
        "input_size": list(input_size),
        "device": _device_name(place),
        "threads": torch.get_num_threads(),
        "mechanisms": counts,
        "latency": timed,
        "notes": notes,
    }
