"""Artifacts of classes that only their author can build."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import normattn
from normattn.errors import ArtifactError
from normattn.model.artifact import load, read_info, save


class Net(nn.Module):
    """A small residual network, two of whose layers share a weight."""

    def __init__(self, classes=4):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.again = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.again.weight = self.conv.weight
        self.fc = nn.Linear(8, classes)
        self.register_buffer("scale", self.fc.weight.detach().abs().sum() * 0 + 3, persistent=False)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.norm(self.conv(x))
        return self.fc(self.again(x).mean((2, 3))) * self.scale


class Predicting(Net):
    def predict(self, x):
        return "mine"


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = normattn.graft(Net(), "nam", sites="norm", input_size=8)
    nn.init.normal_(model.norm.attn.channel.norm.weight)
    return model.eval()


@pytest.mark.parametrize("name", ["x", "x.safetensors"])
def test_a_class_of_the_users_own_comes_back_by_its_builder(tmp_path, model, name):
    path = save(model, tmp_path / name, builder=Net)
    again = load(path, builder=Net)
    x = torch.randn(2, 3, 8, 8)
    assert_close(again(x), model(x), rtol=0, atol=0)
    assert normattn.grafts(again) == normattn.grafts(model)
    assert again.again.weight is again.conv.weight
    assert again.scale == 3


def test_the_file_holds_the_bare_name_of_the_class_and_no_path_to_it(tmp_path, model):
    path = save(model, tmp_path / "x.safetensors", builder=Net)
    info = read_info(path)
    assert (info.host, info.builder) == (None, "Net")
    assert __name__.encode() not in path.read_bytes()


def test_without_a_builder_the_message_says_what_to_pass(tmp_path, model):
    path = save(model, tmp_path / "x", builder=Net)
    with pytest.raises(ArtifactError, match=r"builder=lambda: Net\(\.\.\.\)\)"):
        load(path)


def test_the_builder_may_graft_itself(tmp_path, model):
    def build():
        return normattn.graft(Net(), "nam", sites="norm", input_size=8)

    again = load(save(model, tmp_path / "x", builder=build), builder=build)
    assert_close(dict(again.state_dict()), dict(model.state_dict()), rtol=0, atol=0)


def test_a_builder_that_grafts_something_else_is_refused(tmp_path, model):
    path = save(model, tmp_path / "x", builder=True)
    with pytest.raises(ArtifactError, match=r"'norm': 'nam'.*got \{'norm': 'half'\}"):
        load(path, builder=lambda: normattn.graft(Net(), "half", sites="norm", input_size=8))


def test_a_mechanism_of_the_users_own_comes_back_by_the_builder(tmp_path):
    def build():
        return normattn.graft(Net(), nn.BatchNorm2d, sites="norm", input_size=8)

    model = build().eval()
    path = save(model, tmp_path / "x", builder=build)
    x = torch.randn(2, 3, 8, 8)
    assert_close(load(path, builder=build)(x), model(x), rtol=0, atol=0)
    with pytest.raises(ArtifactError, match="BatchNorm2d"):
        load(path, builder=Net)


def test_saving_tries_the_builder(tmp_path, model):
    with pytest.raises(ArtifactError, match="can be built again"):
        save(model, tmp_path / "x", builder=lambda: nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(ArtifactError, match="returns a model, got int"):
        save(model, tmp_path / "x", builder=lambda: 3)
    assert not (tmp_path / "x").exists()


def test_a_builder_of_another_model_is_refused(tmp_path, model):
    path = save(model, tmp_path / "x", builder=True)
    with pytest.raises(ArtifactError, match="weights that fit the model"):
        load(path, builder=lambda: nn.Sequential(nn.Linear(2, 2)))


def test_a_bug_in_a_builder_shows_as_itself(tmp_path, model):
    def build():
        raise KeyError("mine")

    path = save(model, tmp_path / "x", builder=True)
    with pytest.raises(KeyError, match="mine"):
        load(path, builder=build)


def test_a_host_of_ours_may_be_built_by_the_user_too(tmp_path):
    model = normattn.host("resnet20", 4)
    path = save(model, tmp_path / "x")
    again = load(path, builder=lambda: normattn.host("resnet20", 4))
    assert_close(dict(again.state_dict()), dict(model.state_dict()), rtol=0, atol=0)


def test_a_builder_that_draws_random_numbers_leaves_the_callers_alone(tmp_path, model):
    before = torch.get_rng_state()
    load(save(model, tmp_path / "x", builder=Net), builder=Net)
    assert torch.equal(torch.get_rng_state(), before)
    Net()
    assert not torch.equal(torch.get_rng_state(), before)


def test_a_predict_of_the_class_itself_stays_and_a_warning_says_so(tmp_path):
    path = save(Predicting(), tmp_path / "x", builder=Predicting)
    with pytest.warns(UserWarning, match="Predicting has a method predict of its own"):
        again = load(path, builder=Predicting)
    assert again.predict(None) == "mine"


def test_copies_of_a_loaded_model_predict_with_their_own_weights(tmp_path, model):
    said = {"input_size": [3, 8, 8], "mean": [0.0] * 3, "std": [1.0] * 3}
    path = save(model, tmp_path / "x", classes=list("abcd"), preprocessing=said, builder=Net)
    first = load(path, builder=Net)
    image = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
    expected = first.predict(image).probabilities
    copies = [copy.deepcopy(first), pickle.loads(pickle.dumps(first))]
    with torch.no_grad():
        first.fc.bias[0] += 100
    assert first.predict(image).label == "a"
    for other in copies:
        assert other.predict.model is other
        assert_close(other.predict(image).probabilities, expected, rtol=0, atol=0)
