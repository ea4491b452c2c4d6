"""What the shared forward promises beyond what every mechanism is tested for."""

import torch

from normattn.attention import Gate


class Wide(Gate):
    """Records the type that its gate is computed from."""

    def __init__(self, channels, dtype):
        super().__init__(channels)
        self.scale = torch.nn.Parameter(torch.ones(1, dtype=dtype))
        self.seen = []

    def gate(self, x):
        self.seen.append(x.dtype)
        return self.scale * 0.5


def test_input_is_widened_to_the_parameters_and_output_is_not():
    module = Wide(3, torch.float32)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        y = module(torch.ones(1, 3, 2, 2, dtype=dtype))
        assert y.dtype == dtype
    assert module.seen == [torch.float32] * 3


def test_gate_runs_outside_autocast():
    class Product(Wide):
        def gate(self, x):
            self.seen.append((x.flatten(1) @ x.flatten(1).mT).dtype)
            return self.scale

    module = Product(3, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        module(torch.ones(1, 3, 2, 2))
    assert module.seen == [torch.float32]
