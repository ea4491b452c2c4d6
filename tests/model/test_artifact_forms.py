"""The three forms of an artifact: a folder, one file, and a folder for the Hub."""

import contextlib
import hashlib
import json
import pickle

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

import normattn
from normattn.errors import ArtifactError, ConfigError, RunError
from normattn.model._artifact_files import INFO, WEIGHTS
from normattn.model.artifact import FORMAT, load, read_info, save

SAID = {"input_size": [3, 32, 32], "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2]}
NAMES = [f"class {i}" for i in range(10)]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return normattn.graft(normattn.host("resnet20", 10), "ean", groups=8).eval()


@pytest.fixture
def alone(tmp_path, model):
    """One file, with everything that can be said in it."""
    return save(
        model,
        tmp_path / "x.safetensors",
        classes=NAMES,
        preprocessing=SAID,
        metrics={"top1_error": 3.5},
        slimming={"before": {"parameters": 2}, "after": {"parameters": 1}},
    )


def test_one_file_holds_what_a_folder_does(tmp_path, alone, model):
    folder = save(load(alone), tmp_path / "folder", metrics={"top1_error": 3.5})
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["x.safetensors"]
    one, two = read_info(alone).to_json(), read_info(folder).to_json()
    assert one.pop("sha256") != two.pop("sha256")
    assert one == two
    assert one["format"] == FORMAT == 2
    for again in (load(alone), load(folder)):
        assert_close(dict(again.state_dict()), dict(model.state_dict()), rtol=0, atol=0)
        assert normattn.grafts(again) == normattn.grafts(model)


def test_one_file_is_made_with_the_folder_that_it_is_in(tmp_path, model):
    assert save(model, str(tmp_path / "new" / "x.safetensors")).is_file()


def test_one_file_is_safetensors_to_everybody(alone, model):
    with safe_open(alone, "pt") as file:
        assert json.loads(file.metadata()["normattn"])["host"]["name"] == "resnet20"
        assert file.metadata()["format"] == "pt"
    assert_close(load_file(alone), dict(model.state_dict()), rtol=0, atol=0)


def test_the_checksum_of_one_file_is_that_of_the_file_with_its_digits_blank(alone):
    digits = read_info(alone).sha256.encode()
    content = alone.read_bytes()
    assert content.count(digits) == 1
    assert hashlib.sha256(content.replace(digits, b"0" * 64)).hexdigest().encode() == digits


def test_the_checksum_of_a_folder_is_what_sha256sum_gives(tmp_path, model):
    folder = save(model, tmp_path / "x")
    expected = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    assert read_info(folder).sha256 == expected


def test_equal_weights_are_equal_files_whatever_is_said_of_them(tmp_path, model):
    one = save(model, tmp_path / "1", metrics={"top1_error": 1.0})
    two = save(model, tmp_path / "2", metrics={"top1_error": 2.0})
    assert (one / WEIGHTS).read_bytes() == (two / WEIGHTS).read_bytes()


def flipped(content, place):
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def test_every_bit_of_one_file_counts(alone):
    content = alone.read_bytes()
    header = int.from_bytes(content[:8], "little")
    names = content.index(b"class 3") + 6  # another class, whose description is as good as any
    digits = content.index(read_info(alone).sha256.encode())
    for place in (names, digits, digits + 63, 8 + header, len(content) - 1):
        alone.write_bytes(flipped(content, place))
        with pytest.raises(ArtifactError, match=r"checksum|expected a folder"):
            load(alone)
    for place in range(0, 8 + header, 397):
        alone.write_bytes(flipped(content, place))
        with pytest.raises(ArtifactError):
            load(alone)
    alone.write_bytes(content)
    load(alone)


@pytest.mark.parametrize("share", [0.0, 1e-5, 0.001, 0.5, 0.9999])
def test_one_file_cut_short_is_refused(alone, share):
    content = alone.read_bytes()
    alone.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ArtifactError, match=r"cut short|an empty file|a file"):
        load(alone)


def test_a_file_with_more_at_its_end_is_refused(alone):
    alone.write_bytes(alone.read_bytes() + b"\0" * 8)
    with pytest.raises(ArtifactError):
        load(alone)


def test_weights_of_others_are_no_artifact(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "x.safetensors")
    with pytest.raises(ArtifactError, match="weights without their description"):
        load(tmp_path / "x.safetensors")


def test_the_weights_of_a_folder_alone_are_not_enough(tmp_path, model):
    folder = save(model, tmp_path / "x")
    with pytest.raises(ArtifactError, match="weights without their description"):
        load(folder / WEIGHTS)
    with pytest.raises(ArtifactError, match="JSON without its weights"):
        load(folder / INFO)


@pytest.mark.parametrize("text", ["", "[]", "{}", "{" * 10_000, '{"format": 2}', '{"format": 3}'])
def test_a_header_that_describes_no_model_is_refused(tmp_path, text):
    said = {"normattn": text, "sha256": "0" * 64}
    save_file({"a": torch.zeros(2)}, tmp_path / "x.safetensors", said)
    with pytest.raises(ArtifactError):
        load(tmp_path / "x.safetensors")


def test_a_header_without_a_checksum_is_refused(tmp_path, model):
    page = read_info(save(model, tmp_path / "x")).to_json()
    said = {"normattn": json.dumps(page)}
    save_file(dict(model.state_dict()), tmp_path / "x.safetensors", said)
    with pytest.raises(ArtifactError, match="does not describe"):
        load(tmp_path / "x.safetensors")


def test_a_model_in_a_folder_of_the_first_format_loads(tmp_path, model):
    folder = save(model, tmp_path / "old", classes=NAMES, metrics={"loss": 1.0})
    save_file({n: t.clone() for n, t in model.state_dict().items()}, folder / WEIGHTS)
    page = json.loads((folder / INFO).read_text())
    page |= {"format": 1, "sha256": hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()}
    del page["slimming"], page["builder"]
    for record in page["grafts"]:
        record.pop("kept", None)
    (folder / INFO).write_text(json.dumps(page))
    x = torch.randn(2, 3, 32, 32)
    assert_close(load(folder)(x), model(x), rtol=0, atol=0)
    info = read_info(folder)
    assert (info.slimming, info.builder, info.classes) == (None, None, tuple(NAMES))
    save(model, folder)  # a training that goes on replaces it
    assert json.loads((folder / INFO).read_text())["format"] == FORMAT


def test_a_model_is_replaced_by_a_model_in_both_forms(tmp_path, alone, model):
    save(model, alone, metrics={"top1_error": 1.0})
    assert read_info(alone).metrics == {"top1_error": 1.0}
    for error in (1.0, 2.0):
        folder = save(model, tmp_path / "f", metrics={"top1_error": error})
    assert read_info(folder).metrics == {"top1_error": 2.0}


FOREIGN = {
    "other weights": lambda p: save_file({"a": torch.zeros(2)}, p),
    "a pickle": lambda p: p.write_bytes(pickle.dumps([1])),
    "text": lambda p: p.write_text("precious"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_no_model_of_ours_is_not_written_over(tmp_path, model, kind):
    places = [tmp_path / "x.safetensors", tmp_path / "f" / WEIGHTS]
    (tmp_path / "f").mkdir()
    for place, path in zip(places, (places[0], tmp_path / "f"), strict=True):
        FOREIGN[kind](place)
        before = place.read_bytes()
        with pytest.raises(ArtifactError, match="nothing, or a model of normattn to replace"):
            save(model, path)
        assert place.read_bytes() == before
        assert not (tmp_path / "f" / INFO).exists()


def test_a_page_of_somebody_else_is_not_written_over(tmp_path, model):
    (tmp_path / INFO).write_text('{"mine": 1}')
    with pytest.raises(ArtifactError, match=r"model\.json: expected nothing"):
        save(model, tmp_path)


def test_a_folder_of_transformers_is_not_written_over(tmp_path, model):
    (tmp_path / "config.json").write_text("{}")
    save_file({"a": torch.zeros(2)}, tmp_path / WEIGHTS)
    with pytest.raises(ArtifactError, match=r"one with a config\.json"):
        save(model, tmp_path)
    assert list(load_file(tmp_path / WEIGHTS)) == ["a"]


def test_the_weights_of_a_folder_are_not_replaced_alone(tmp_path, model):
    folder = save(model, tmp_path / "x")
    with pytest.raises(ArtifactError, match="a part of the model in"):
        save(model, folder / WEIGHTS)
    load(folder)


def test_a_folder_with_the_name_of_a_file_is_a_folder(tmp_path, model):
    (tmp_path / "x.safetensors").mkdir()
    assert (save(model, tmp_path / "x.safetensors") / INFO).is_file()


def test_a_file_in_a_place_that_is_a_file_is_refused(tmp_path, model):
    (tmp_path / "f").write_text("")
    with pytest.raises(RunError, match="can be written"):
        save(model, tmp_path / "f" / "x.safetensors")


def test_a_write_that_fails_leaves_the_model_that_was_there(tmp_path, alone, model, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    before = alone.read_bytes()
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunError, match="No space left"):
        save(model, alone)
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]
    assert alone.read_bytes() == before


def test_what_was_said_goes_along_with_a_loaded_model(tmp_path, alone):
    again = load(alone)
    info = read_info(save(again, tmp_path / "y.safetensors"))
    assert info.classes == tuple(NAMES)
    assert info.preprocessing == SAID
    assert info.slimming == read_info(alone).slimming
    assert info.metrics is None  # the weights may be others by now
    normattn.ungraft(again)  # it costs something else now
    assert read_info(save(again, tmp_path / "z.safetensors")).slimming is None


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"metrics": {"a": float("nan")}}, "metrics of JSON types"),
        ({"metrics": {"a": torch.zeros(1)}}, "metrics of JSON types"),
        ({"slimming": [1]}, "slimming of JSON types"),
        ({"classes": "abcdefghij"}, "the name of each class, as text"),
        ({"classes": list(range(10))}, "the name of each class, as text"),
        ({"classes": NAMES[:9]}, "expected 10 class names, one an output, got 9"),
    ],
    ids=str,
)
def test_what_cannot_be_said_is_refused_before_anything_is_written(tmp_path, model, said, match):
    with pytest.raises(ConfigError, match=match):
        save(model, tmp_path / "x", **said)
    assert not (tmp_path / "x").exists()


def test_loading_leaves_the_random_numbers_alone(alone):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    load(alone)
    assert torch.equal(torch.rand(2), expected)


def test_loading_fills_no_parameter_that_is_read_anyway(alone, monkeypatch):
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: contextlib.nullcontext())
    before = torch.get_rng_state()
    load(alone)
    assert torch.equal(torch.get_rng_state(), before)
    normattn.host("resnet20", 10)
    assert not torch.equal(torch.get_rng_state(), before)  # so it does show


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "test_vit", "test_convnext"])
def test_hosts_with_buffers_that_are_computed_come_back(tmp_path, name):
    options = {"embed_dim": 24} if name.startswith("swin") else {}
    torch.manual_seed(0)
    model = normattn.host(name, 3, **options).eval()
    size = 224 if name.startswith("swin") else 160
    x = torch.randn(1, 3, size, size)
    again = load(save(model, tmp_path / "x.safetensors"))
    assert_close(again(x), model(x), rtol=0, atol=0)
    computed = {name for name, _ in model.named_buffers()} - set(model.state_dict())
    theirs = dict(again.named_buffers())
    for key in computed:
        assert torch.equal(theirs[key], model.get_buffer(key)), key


def test_a_compiled_model_is_saved_as_the_one_inside(tmp_path, model):
    compiled = torch.compile(model)
    again = load(save(compiled, tmp_path / "x.safetensors"))
    assert list(again.state_dict()) == list(model.state_dict())


def test_a_model_without_values_is_refused(tmp_path):
    with torch.device("meta"):
        model = normattn.host("resnet20", 10)
    with pytest.raises(ArtifactError, match=r"plain numbers, got meta torch\.float32 at conv1"):
        save(model, tmp_path)
