"""A model as a runtime computes it, and plans whose latency is measured there."""

import re
import tempfile

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from normattn import fuse, graft
from normattn.errors import ConfigError, UnsupportedModel
from normattn.model import _runtimes, _slim_cost
from normattn.model._runtimes import check_runtime, in_runtime, label, version_of
from normattn.model.profile import Latency
from normattn.model.slim import SlimPlan, plan_slim

X = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
OTHERS = ("onnxruntime", "openvino")


@pytest.fixture
def net():
    """Return a small classifier with attention, fused."""
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
    body = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU())
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4))
    model = nn.Sequential(stem, body, head)
    return fuse(graft(model, "nam-channel", sites="1", input_size=8)).eval()


@pytest.fixture
def loaded(monkeypatch):
    """Let a model take a microsecond a parameter in a runtime; list widths loaded, and calls."""
    widths, calls = [], []

    def load(model, size, runtime, *, threads):
        widths.append((model[0][0].out_channels, model[1][0].out_channels))
        calls.append((tuple(size), runtime, threads))
        return model

    def latency(models, size, **options):
        calls.append((list(models), options))
        seconds = {k: sum(p.numel() for p in m.parameters()) * 1e-6 for k, m in models.items()}
        first = next(iter(seconds.values()))
        return {k: Latency(s, s, s, s / first) for k, s in seconds.items()}

    monkeypatch.setattr(_slim_cost, "in_runtime", load)
    monkeypatch.setattr(_slim_cost, "latency", latency)
    return widths, calls


@pytest.mark.parametrize("runtime", OTHERS)
def test_a_runtime_computes_what_the_model_does_on_batches_of_any_size(net, runtime, monkeypatch):
    made, make = [], tempfile.mkdtemp
    monkeypatch.setattr(tempfile, "mkdtemp", lambda *a, **k: made.append(make(*a, **k)) or made[-1])
    there = in_runtime(net.train(), (3, 8, 8), runtime, threads=2)
    assert net.training  # left as it was
    with torch.no_grad():
        expected = net.eval()(X)
    for images in (X, X[:1]):
        assert_close(there(images), expected[: len(images)], rtol=1e-4, atol=1e-5)
    assert made
    assert not any(_runtimes.Path(path).exists() for path in made)
    if runtime == "onnxruntime":
        assert there._session.get_session_options().intra_op_num_threads == 2
    else:
        assert there._compiled.get_property("INFERENCE_NUM_THREADS") == 2


def test_runtimes_say_their_name_and_version():
    assert [label(name) for name in ("torch", *OTHERS)] == ["PyTorch", "ONNX Runtime", "OpenVINO"]
    for name in ("torch", *OTHERS):
        assert re.fullmatch(r"\d+\.\d+(\.\d+)?(\.?(dev|a|b|rc)\d*)?", version_of(name))


@pytest.mark.parametrize(
    ("runtime", "absent", "line"),
    [
        ("onnxruntime", ("onnx", "onnxruntime"), "pip install 'normattn[export]'"),
        ("openvino", ("openvino",), "pip install 'normattn[openvino]'"),
    ],
)
def test_a_missing_package_is_one_sentence_with_its_line_before_anything(
    net, monkeypatch, runtime, absent, line
):
    monkeypatch.setattr(_runtimes, "_installed", lambda name: name not in absent)
    monkeypatch.setattr("normattn.model.slim.standing_in", None)  # would be called next
    with pytest.raises(ConfigError, match=f"plan_slim: expected {' and '.join(absent)} for") as e:
        plan_slim(net, X, {"speedup": 2}, "magnitude", runtime=runtime)
    assert line in str(e.value)
    check_runtime("plan_slim", "torch")


def test_an_unknown_runtime_names_the_nearest(net):
    with pytest.raises(ConfigError, match="Did you mean 'onnxruntime'"):
        plan_slim(net, X, {"channels": 0.5}, "magnitude", runtime="onnx-runtime")


def test_a_model_that_no_exporter_can_express_is_refused_with_what_to_do():
    class Choosy(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(256, 4))

        def forward(self, x):
            return self.body(x) if float(x.sum()) > -1e9 else x

    with pytest.raises(
        UnsupportedModel, match=r"timed in OpenVINO, got one that cannot .* Use the runtime torch"
    ):
        in_runtime(Choosy().eval(), (3, 8, 8), "openvino")


def test_latency_is_that_of_both_in_the_runtime_timed_in_turns(net, loaded):
    widths, calls = loaded
    made = plan_slim(net, X, {"channels": 0.5}, "magnitude", runtime="onnxruntime")
    assert widths == [(16, 32), (8, 16)]
    assert calls[0] == ((3, 8, 8), "onnxruntime", torch.get_num_threads())
    names, options = calls[-1]
    assert names == ["before", "after"]
    assert (options["batch"], options["threads"]) == (3, torch.get_num_threads())
    assert options["device"] == torch.device("cpu")
    assert made.runtime == "onnxruntime"
    assert made.after.latency_ms == pytest.approx(made.after.parameters * 1e-3)
    assert ", in onnxruntime" in str(made)
    assert SlimPlan.from_json(made.to_json()) == made


def test_no_width_is_exported_twice_and_few_are(net, loaded):
    widths, _ = loaded
    made = plan_slim(net, X, {"speedup": 2}, "magnitude", round_to=1, runtime="openvino")
    assert made.reached
    assert 2 <= made.before.latency_ms / made.after.latency_ms < 2.2
    assert len(widths) == len(set(widths)) <= 5


def test_plans_from_before_there_was_a_choice_are_of_torch(net):
    content = plan_slim(net, X, {"channels": 0.5}, "magnitude").to_json()
    assert content.pop("runtime") == "torch"
    assert SlimPlan.from_json(content).runtime == "torch"
