"""Artifacts of slimmed models: the shapes of the tensors say what is left."""

import copy
import json

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import normattn
from normattn.attention import Mechanism
from normattn.errors import ArtifactError
from normattn.model.artifact import INFO, load, read_info, save
from normattn.model.slim import plan_slim, slim

X = torch.zeros(1, 3, 64, 64)
HOSTS = {
    "resnet18": {},
    "mobilenetv2_035": {},
    "test_convnext": {},
    "regnetx_002": {},
}


def slimmed(name="resnet20", mechanism="nam", share=0.5, sites="layer1.*.bn2"):
    """Return a slimmed host whose statistics and scales are not the initial ones."""
    torch.manual_seed(0)
    model = normattn.host(name, 10, **HOSTS.get(name, {}))
    normattn.graft(model, Mechanism.parse(mechanism), input_size=64, sites=sites)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    plan = plan_slim(model.eval(), X, {"channels": share}, "magnitude")
    return slim(model, plan)


def assert_equal_models(again, model):
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert_close(again(x), model(x), rtol=0, atol=0)
    assert_close(dict(again.state_dict()), dict(model.state_dict()), rtol=0, atol=0)
    assert normattn.grafts(again) == normattn.grafts(model)


@pytest.mark.parametrize("mechanism", sorted(set(normattn.available()) - {"half", "none"}))
def test_every_mechanism_comes_back_slimmed(tmp_path, mechanism):
    model = slimmed(mechanism=mechanism)
    full = sum(p.numel() for p in normattn.host("resnet20", 10).parameters())
    assert sum(p.numel() for p in model.parameters()) < 0.6 * full
    assert_equal_models(load(save(model, tmp_path / "x.safetensors")), model)


@pytest.mark.parametrize("mechanism", ["se", "cbam", "bam"])
def test_narrower_bottlenecks_come_back(tmp_path, mechanism):
    model = slimmed(mechanism=f"{mechanism}(reduction=4)")
    assert model.layer1[0].bn2.attn.hidden == 2 * (4 if mechanism == "bam" else 1)
    again = load(save(model, tmp_path / "x"))
    assert_equal_models(again, model)
    assert repr(again) == repr(model)


@pytest.mark.parametrize("name", HOSTS)
def test_every_family_of_hosts_comes_back_slimmed(tmp_path, name):
    mechanism = "none" if name == "test_convnext" else "nam-channel"
    model = slimmed(name, mechanism, sites="blocks")
    again = load(save(model, tmp_path / "x"))
    assert_equal_models(again, model)
    assert repr(again) == repr(model)  # what layers say of their widths


def test_what_was_slimmed_slims_again_after_loading(tmp_path):
    again = load(save(slimmed(share=0.3), tmp_path / "x"))
    other = slimmed(share=0.3)
    for model in (again, other):
        slim(model, plan_slim(model, X, {"channels": 0.5}, "magnitude"))
    assert_equal_models(again, other)
    assert_equal_models(load(save(again, tmp_path / "y")), again)


def test_a_slimmed_model_is_a_whole_one(tmp_path):
    """It trains, copies, fuses and gives its attention back as any other does."""
    again = load(save(slimmed(), tmp_path / "x"))
    again.train()(torch.randn(4, 3, 64, 64)).sum().backward()
    assert all(p.grad is not None for p in again.parameters())
    again.eval()
    x = torch.randn(2, 3, 64, 64)
    expected = again(x)
    assert_close(copy.deepcopy(again)(x), expected, rtol=0, atol=0)
    assert_close(normattn.fuse(copy.deepcopy(again))(x), expected, rtol=1e-4, atol=1e-5)
    assert normattn.grafts(normattn.ungraft(again)) == ()


def test_what_was_removed_is_said(tmp_path):
    removed = {"criterion": "magnitude", "before": {"parameters": 3}, "after": {"parameters": 1}}
    path = save(slimmed(), tmp_path / "x.safetensors", slimming=removed)
    assert read_info(path).slimming == removed
    assert [record.kept for record in read_info(path).grafts][:2] == [8, 8]


def test_a_slimmed_model_predicts(tmp_path):
    said = {"input_size": [3, 64, 64], "mean": [0.5] * 3, "std": [0.25] * 3}
    names = [f"class {k}" for k in range(10)]
    model = slimmed()
    again = load(save(model, tmp_path / "x", classes=names, preprocessing=said))
    with torch.no_grad():
        expected = model(torch.full((1, 3, 64, 64), (1 - 0.5) / 0.25)).softmax(1)[0]
    found = again.predict(torch.full((3, 64, 64), 255, dtype=torch.uint8))
    assert_close(found.probabilities, expected)


class Net(nn.Module):
    """A plain stack of the user's own."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(32, 4)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


def test_a_class_of_the_users_own_comes_back_slimmed(tmp_path):
    model = normattn.graft(Net(), "nam-channel", sites="body.4", input_size=64).eval()
    slim(model, plan_slim(model, X, {"channels": 0.5}, "magnitude"))
    assert model.head.in_features == 16
    assert_equal_models(load(save(model, tmp_path / "x", builder=Net), builder=Net), model)


def test_a_classifier_of_another_width_is_no_slimming(tmp_path):
    model = slimmed()
    model.fc = nn.Linear(model.fc.in_features, 7)
    with pytest.raises(ArtifactError, match=r"expected 10 outputs.*got 7 at fc\.weight"):
        save(model, tmp_path / "x")


def test_layers_wider_than_the_host_are_refused(tmp_path):
    model = normattn.host("resnet20", 10)
    model.fc = nn.Linear(80, 10)
    with pytest.raises(ArtifactError, match=r"fc\.weight to be of \(10, 64\) or narrower"):
        save(model, tmp_path / "x")


def test_a_record_of_other_channels_than_the_tensors_is_refused(tmp_path):
    path = save(slimmed(), tmp_path / "x")
    page = json.loads((path / INFO).read_text())
    page["grafts"][0]["kept"] = 4
    (path / INFO).write_text(json.dumps(page))
    with pytest.raises(ArtifactError, match="weights that fit the model"):
        load(path)
