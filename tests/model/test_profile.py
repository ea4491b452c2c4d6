import copy
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import normattn
from normattn.errors import ConfigError, InputError, UnsupportedModel
from normattn.model import profile as profile_module
from normattn.model.hosts import host
from normattn.model.profile import Latency, latency, profile

# Mechanism, exact parameters, and the two columns that NAM's table 1 prints for ResNet-50 on
# CIFAR-100 (None: not in the paper).
TABLE_1 = [
    ("none", 23_705_252, "23.71", "1.30"),
    ("se", 26_220_196, "26.22", "1.31"),
    ("bam", 24_063_319, "24.06", "1.33"),
    ("cbam", 26_237_844, "26.24", "1.31"),
    ("triplet", 23_710_052, "23.71", "1.33"),
    ("nam-channel", 23_735_460, "23.74", "1.31"),
    ("nam-spatial", 23_714_308, "23.71", "1.31"),
    ("nam", 23_744_516, None, None),
    ("ean", 23_709_028, None, None),
    ("half", 23_705_252, None, None),
]

# The same of table 2, MobileNetV2 on ImageNet. Two numbers do not come out, whatever the counter:
# the paper prints 3.51 for the parameters of the base and 0.32 for the FLOPs of SE. docs/numbers.md
# says what is known.
TABLE_2 = [
    ("none", 3_504_872, "3.50", "0.31"),
    ("se", 3_533_288, "3.53", "0.31"),
    ("bam", 3_542_919, "3.54", "0.32"),
    ("cbam", 3_536_585, "3.54", "0.32"),
    ("nam-channel", 3_507_880, None, None),
    ("nam-spatial", 3_550_344, None, None),
    ("nam", 3_553_352, None, None),
]

NUMBERS = Path(__file__).parents[2] / "docs" / "numbers.md"


def check_row(
    model: nn.Module,
    size: int,
    row: tuple[str, int, str | None, str | None],
) -> None:
    """Compare a model with a row of a table, and the row that docs/numbers.md prints with both."""
    mechanism, parameters, millions, billions = row
    cost = profile(normattn.graft(model, mechanism, input_size=(size, size)), size)
    assert cost.parameters == parameters
    if millions is not None:
        assert f"{cost.parameters / 1e6:.2f}" == millions
        assert f"{cost.paper_macs / 1e9:.2f}" == billions
    products = f"{cost.macs / 1e9:.4f} | {cost.paper_macs / 1e9:.4f}"
    printed = f"| {mechanism} | {cost.parameters:,} | {products} |"
    assert printed in NUMBERS.read_text()


@pytest.mark.parametrize("row", TABLE_1, ids=lambda row: row[0])
def test_table_1_comes_out_as_printed(row: tuple[str, int, str | None, str | None]) -> None:
    check_row(host("resnet50", 100, stem="cifar"), 32, row)


@pytest.mark.parametrize("row", TABLE_2, ids=lambda row: row[0])
def test_table_2_of_mobilenetv2_comes_out(row: tuple[str, int, str | None, str | None]) -> None:
    check_row(host("mobilenetv2_100", 1000), 224, row)


def test_convolutions_and_linear_layers_are_counted_by_hand() -> None:
    model = nn.Sequential(
        nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2),
        nn.Flatten(),
        nn.Linear(8 * 5 * 5, 7),
    )
    cost = profile(model, (10, 9), batch=3)
    assert cost.macs == 3 * (8 * 5 * 5 * (4 // 2) * 9 + 8 * 5 * 5 * 7)
    assert cost.paper_macs == cost.macs
    assert cost.parameters == (8 * 2 * 9 + 8) + (200 * 7 + 7)
    assert cost.elementwise == 0


@pytest.mark.parametrize(
    ("norm", "shape"),
    [(nn.BatchNorm2d(4), (4, 6, 5)), (nn.BatchNorm2d(4, affine=False), (4, 6, 5))],
)
def test_a_batch_norm_costs_two_for_each_element_of_the_papers_count(
    norm: nn.Module, shape: tuple[int, int, int]
) -> None:
    cost = profile(norm, shape)
    assert (cost.macs, cost.paper_macs, cost.elementwise) == (0, 2 * math.prod(shape), 0)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.ReLU(), 60),
        (nn.ReLU(inplace=True), 60),
        (nn.ReLU6(), 60),
        (nn.Sigmoid(), 60),
        (nn.AdaptiveAvgPool2d(1), 60),
        (nn.MaxPool2d(2), 60),
        (nn.AvgPool2d(2), 60),
        (nn.GroupNorm(2, 4), 120),
        (nn.Softmax(dim=1), 120),
        (nn.Identity(), 0),
        (nn.Flatten(), 0),
        (nn.ZeroPad2d(1), 0),
    ],
)
def test_elementwise_work_is_counted_once_and_apart(layer: nn.Module, expected: int) -> None:
    cost = profile(layer, (4, 5, 3))
    assert (cost.elementwise, cost.paper_macs) == (expected, 0)


class Copies(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).contiguous().clone().double().to(x.dtype)


def test_moving_data_is_no_arithmetic() -> None:
    assert profile(Copies(), (4, 5, 3)).elementwise == 0


class Broadcast(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x.amax(dim=(2, 3), keepdim=True).sigmoid()


def test_a_gate_costs_its_reduction_its_sigmoid_and_its_product() -> None:
    assert profile(Broadcast(), (4, 5, 3)).elementwise == 60 + 4 + 60


class InPlace(nn.Module):
    """Three maps of the input's size in a chain; two are alive at once, with the input apart."""

    def forward(self, x: Tensor) -> Tensor:
        y = x + 1
        y = y + 1
        return y.relu_().view(-1) + 1


def test_inference_memory_is_the_peak_of_what_is_alive_at_once() -> None:
    assert profile(InPlace(), (4, 5, 3), batch=2).inference_bytes == 2 * 2 * 60 * 4


def test_training_memory_is_what_the_backward_pass_needs() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Sigmoid(), nn.Conv2d(8, 2, 1))
    # Kept: the output of the sigmoid, for itself and the second convolution, once. Not kept: the
    # output of the first convolution. The images and the weights are there anyway.
    assert profile(model, (3, 6, 6)).training_bytes == 8 * 36 * 4


def test_weights_that_are_views_are_no_activations() -> None:
    assert profile(nn.Flatten(), (1, 4, 4)).inference_bytes == 0
    linear = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    assert profile(linear, (1, 4, 4)).inference_bytes == 2 * 4


def test_a_fused_model_is_counted_in_its_plain_form() -> None:
    model = normattn.graft(host("resnet20", 10), "nam")
    expected = profile(model, 32)
    assert profile(normattn.fuse(model), 32) == expected
    assert type(model.layer1[0]).__name__ == "FusedCifarBasicBlock"  # it stays fused


def test_a_profile_says_what_it_was_counted_at() -> None:
    cost = profile(host("resnet20", 10, in_chans=1), 8, batch=2)
    assert (cost.input_size, cost.batch) == ((1, 8, 8), 2)


def test_counts_grow_with_the_batch_and_parameters_do_not() -> None:
    model = host("resnet20", 10)
    one, four = profile(model, 16), profile(model, (16, 16), batch=4)
    assert one == profile(model, (3, 16, 16))
    assert four.parameters == one.parameters
    assert (four.macs, four.paper_macs) == (4 * one.macs, 4 * one.paper_macs)
    assert four.elementwise == 4 * one.elementwise


def test_a_shared_parameter_is_counted_once() -> None:
    layer = nn.Conv2d(3, 3, 1, bias=False)
    assert profile(nn.Sequential(layer, layer), 4).parameters == 9


def test_a_model_on_the_meta_device_is_counted_without_memory() -> None:
    with torch.device("meta"):
        ghost = host("resnet20", 10)
    meta, real = profile(ghost, 16), profile(host("resnet20", 10), 16)
    assert (meta.parameters, meta.macs, meta.paper_macs, meta.elementwise) == (
        real.parameters,
        real.macs,
        real.paper_macs,
        real.elementwise,
    )
    # Beside the maps, batch norms keep two numbers a channel on some devices, none on others.
    assert meta.training_bytes == pytest.approx(real.training_bytes, rel=0.02)
    assert meta.inference_bytes == pytest.approx(real.inference_bytes, rel=0.02)


def state(model: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(model.state_dict())


@pytest.mark.parametrize("measure", [profile, lambda m, size: latency({"m": m}, size, rounds=1)])
def test_the_model_is_left_as_it_was(measure) -> None:
    model = host("resnet20", 10).train()
    model.get_submodule("layer1.0.bn1").eval()  # a frozen norm, as in fine-tuning
    modes = [m.training for m in model.modules()]
    before = state(model)
    measure(model, 8)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_the_mode_comes_back_even_when_the_model_fails() -> None:
    model = host("resnet20", 10).train()
    with pytest.raises(UnsupportedModel):
        profile(model, (5, 8, 8))
    assert model.training


def test_counting_and_timing_draw_no_random_numbers() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Dropout(0.5))
    before = torch.get_rng_state()
    profile(model, 4)
    latency({"m": model}, 4, rounds=2)
    assert torch.equal(torch.get_rng_state(), before)


class Refuses(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise InputError("Refuses: expected anything else, got this.")


def test_a_refusal_in_our_own_words_stays_as_it_is() -> None:
    with pytest.raises(InputError, match=r"^Refuses: expected anything else"):
        profile(Refuses(), 4)


@pytest.mark.parametrize("measure", [profile, lambda m, size: latency({"m": m}, size)])
def test_an_input_that_the_model_cannot_take_is_one_sentence(measure) -> None:
    with pytest.raises(UnsupportedModel, match=r"of shape \(1, 5, 8, 8\), got RuntimeError"):
        measure(host("resnet20", 10), (5, 8, 8))


@pytest.mark.parametrize("size", [0, -3, 2.5, True, "ab", (32,), (1, 3, 32, 32), (32, 0), None])
def test_an_input_size_that_is_none_is_refused(size: object) -> None:
    with pytest.raises(ConfigError, match=r"profile: expected .*input_size"):
        profile(nn.Identity(), size)


@pytest.mark.parametrize("batch", [0, 1.5, True])
def test_a_batch_that_is_none_is_refused(batch: object) -> None:
    with pytest.raises(ConfigError, match="expected batch to be an integer >= 1"):
        profile(nn.Identity(), 4, batch=batch)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rounds": 0}, "expected rounds to be an integer >= 1, got 0"),
        ({"threads": 0}, "expected threads to be an integer >= 1, got 0"),
        ({"batch": 0}, "expected batch to be an integer >= 1, got 0"),
        ({"device": "quark"}, "expected a device of this machine, got 'quark'"),
        ({"device": "cuda:99"}, "expected a device of this machine, got 'cuda:99'"),
    ],
)
def test_a_latency_setting_out_of_range_is_refused(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        latency({"m": nn.Identity()}, 4, **settings)


def test_latency_of_no_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected at least one model, got none"):
        latency({}, 4)


class Recorder(nn.Module):
    """Writes its name down each time it runs."""

    def __init__(self, name: str, log: list[str]) -> None:
        super().__init__()
        self.name, self.log = name, log

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training
        assert torch.is_inference_mode_enabled()
        self.log.append(self.name)
        return x


def test_every_round_times_every_model_once_in_an_order_of_its_own() -> None:
    log: list[str] = []
    names = ["a", "b", "c"]
    latency({name: Recorder(name, log) for name in names}, 4, rounds=20)
    warm_up = log[: 3 * len(names)]
    assert warm_up == ["a"] * 3 + ["b"] * 3 + ["c"] * 3
    timed = log[len(warm_up) :]
    rounds = [tuple(timed[i : i + 3]) for i in range(0, len(timed), 3)]
    assert len(rounds) == 20
    assert all(sorted(order) == names for order in rounds)
    assert len(set(rounds)) > 3


def test_latency_gives_quantiles_and_the_median_of_the_ratios_within_rounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The ratios in the three rounds are 2, 3 and 10; the ratio of the medians would be 30 / 5.
    warm_up = [0.0] * 3
    clocks = {"a": iter([*warm_up, 1.0, 10.0, 5.0]), "b": iter([*warm_up, 2.0, 30.0, 50.0])}
    monkeypatch.setattr(profile_module, "_seconds", lambda model, x: next(clocks[model.name]))
    result = latency({name: Recorder(name, []) for name in "ab"}, 4, rounds=3)
    assert result == {
        "a": Latency(median=5.0, p20=pytest.approx(2.6), p80=pytest.approx(8.0), ratio=1.0),
        "b": Latency(median=30.0, p20=pytest.approx(13.2), p80=pytest.approx(42.0), ratio=3.0),
    }


def test_latency_runs_on_the_threads_that_it_was_given_and_gives_them_back() -> None:
    seen: list[int] = []

    class Threads(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(torch.get_num_threads())
            return x

    before = torch.get_num_threads()
    latency({"m": Threads()}, 4, rounds=1, threads=before + 1)
    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_model_on_the_cpu_is_timed_on_the_gpu_and_counts_agree() -> None:
    model = host("resnet20", 10)
    result = latency({"m": model}, 32, rounds=3, device="cuda")
    assert result["m"].median > 0
    assert next(model.parameters()).device.type == "cpu"
    on_cpu = profile(model, 32)
    on_gpu = profile(model.cuda(), 32)
    assert (on_gpu.macs, on_gpu.paper_macs) == (on_cpu.macs, on_cpu.paper_macs)
    assert on_gpu.elementwise == on_cpu.elementwise
