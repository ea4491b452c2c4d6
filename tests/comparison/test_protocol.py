"""The protocol: canonical, frozen, JSON there and back, differences in words."""

import dataclasses
import json

import pytest

from normattn.comparison.protocol import Protocol, read_protocol, trial_folder, write_protocol
from normattn.errors import ConfigError, RunError
from normattn.training import recipe


def protocol(**changes) -> Protocol:
    settings = {
        "data": "digits",
        "host": "resnet20",
        "stem": "cifar",
        "mechanisms": ("none", "ean( groups = 8 )"),
        "seeds": (0, 1),
        "recipe": recipe("quick", epochs=10),
    }
    return Protocol(**settings | changes)


def test_labels_are_kept_in_canonical_form():
    assert protocol().mechanisms == ("none", "ean(groups=8)")


def test_json_gives_back_an_equal_protocol():
    ours = protocol(sites=("layer1.*", "layer2.*"), host_options={"width": 2}, train_limit=64)
    assert Protocol.from_json(json.loads(json.dumps(ours.to_json()))) == ours


def test_json_holds_every_value_of_the_recipe():
    written = protocol().to_json()["recipe"]
    assert set(written) == {field.name for field in dataclasses.fields(recipe("quick"))}


def test_jobs_come_seed_by_seed():
    jobs = [(job.seed, job.mechanism) for job in protocol().jobs()]
    assert jobs == [(0, "none"), (0, "ean(groups=8)"), (1, "none"), (1, "ean(groups=8)")]


def test_jobs_differ_in_mechanism_and_seed_alone():
    contents = [job.to_json() | {"mechanism": "", "seed": 0} for job in protocol().jobs()]
    assert all(content == contents[0] for content in contents)


def test_a_difference_is_said_in_words():
    changed = protocol(recipe=recipe("quick", epochs=12), mechanisms=("none", "se"), train_limit=9)
    assert sorted(protocol().difference(changed)) == [
        "mechanisms: ['none', 'ean(groups=8)'] → ['none', 'se']",
        "recipe.epochs: 10 → 12",
        "train_limit: None → 9",
    ]
    assert protocol().difference(protocol()) == []


def test_a_value_is_not_equal_to_its_text():
    assert protocol(host_options={"a": 1}).difference(protocol(host_options={"a": "1"}))


def test_a_key_that_only_one_protocol_has_is_a_difference():
    found = protocol(host_options={"width": 2}).difference(protocol())
    assert found == ["host_options.width: 2 → not set"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mechanisms": ()}, "at least one of mechanisms"),
        ({"mechanisms": ("se", "se()")}, "got se twice"),
        ({"mechanisms": ("nam-chanel",)}, "nam-channel"),
        ({"seeds": ()}, "at least one of seeds"),
        ({"seeds": (1, 1)}, "got 1 twice"),
        ({"seeds": (-1,)}, "got -1"),
        ({"seeds": (True,)}, "got True"),
    ],
)
def test_bad_mechanisms_and_seeds_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        protocol(**changes)


def test_a_folder_keeps_the_protocol_it_was_made_with(tmp_path):
    write_protocol(protocol(), tmp_path)
    write_protocol(protocol(), tmp_path)
    with pytest.raises(RunError, match=r"recipe.epochs: 10 → 12"):
        write_protocol(protocol(recipe=recipe("quick", epochs=12)), tmp_path)
    assert read_protocol(tmp_path) == protocol()


def test_a_protocol_from_before_there_were_kernels_is_plain(tmp_path):
    content = protocol().to_json()
    assert content.pop("fuse") is True
    (tmp_path / "protocol.json").write_text(json.dumps(content))
    assert read_protocol(tmp_path) == protocol(fuse=False)
    write_protocol(protocol(fuse=False), tmp_path)
    with pytest.raises(RunError, match="fuse: False → True"):
        write_protocol(protocol(), tmp_path)


def test_every_job_is_fused_as_the_protocol_says():
    assert all(job.fuse for job in protocol().jobs())
    assert not any(job.fuse for job in protocol(fuse=False).jobs())


def test_a_folder_without_a_protocol_is_no_run(tmp_path):
    with pytest.raises(RunError, match=r"expected a run folder with protocol\.json, got none"):
        read_protocol(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "expected format 1, got 99"),
        ({"tran_limit": 3}, "train_limit"),
        ({"seeds": None}, "expected values as compare writes them"),
        ({"recipe": 5}, "expected values as compare writes them"),
        ({"mechanisms": 5}, "expected values as compare writes them"),
    ],
)
def test_a_protocol_file_that_is_not_ours_is_refused(tmp_path, change, message):
    content = protocol().to_json() | change
    (tmp_path / "protocol.json").write_text(json.dumps(content))
    with pytest.raises((RunError, ConfigError), match=message):
        read_protocol(tmp_path)


@pytest.mark.parametrize("content", ["[]", "{", "", "nul"])
def test_a_protocol_file_that_is_no_object_is_refused(tmp_path, content):
    (tmp_path / "protocol.json").write_text(content)
    with pytest.raises(RunError, match=r"protocol\.json: expected"):
        read_protocol(tmp_path)


def test_no_label_leaves_the_folder_and_no_two_share_one(tmp_path):
    labels = [
        "../../x",
        "..",
        "a/b",
        "ean(groups=8)",
        "ean(groups=-8)",
        "EAN",
        "ean",
        "é",
        "x" * 300,
    ]
    folders = [trial_folder(tmp_path, label, 0) for label in labels]
    assert len(set(folders)) == len(labels)
    for folder in folders:
        assert folder.resolve().parent.parent == tmp_path.resolve() / "trials"
        assert len(folder.parent.name) < 100
    assert trial_folder(tmp_path, "nam-channel", 2) == tmp_path / "trials/nam-channel/seed-2"
