"""Mechanisms by name and as text."""

import copy
import dataclasses
import pickle

import pytest

from normattn.attention import (
    EAN,
    MECHANISMS,
    Mechanism,
    NAMSpatial,
    available,
    create,
    parse_list,
)
from normattn.errors import ConfigError

ISSUE = "none half nam-channel nam-spatial nam ean se bam cbam triplet"


def test_names_are_those_promised_in_order():
    assert available() == ISSUE.split() == list(MECHANISMS)


def test_the_list_of_names_is_the_callers_own():
    available().clear()
    assert available() == list(MECHANISMS)


def test_create_passes_options_on():
    assert isinstance(module := create("ean", 32, groups=8), EAN)
    assert module.groups == 8
    module = create("nam-spatial", 8, size=(2, 3), device="meta")
    assert isinstance(module, NAMSpatial)
    assert (module.size, module.norm.weight.is_meta) == ((2, 3), True)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("nam-chanel", "Did you mean 'nam-channel'"),
        ("SE", "Known: none, half"),
        ("", "Known: none"),
    ],
)
def test_unknown_name_is_refused_with_the_nearest(name, hint):
    with pytest.raises(ConfigError, match=f"attention: expected a known mechanism, got .*{hint}"):
        create(name, 8)
    with pytest.raises(ConfigError, match=f"attention: expected a known mechanism, got .*{hint}"):
        Mechanism(name)


@pytest.mark.parametrize(
    "make", [lambda **o: create("ean", 32, **o), lambda **o: Mechanism("ean", o)]
)
def test_unknown_option_is_refused_with_the_mechanisms_own(make):
    message = r"^ean: expected a known option, got 'group'\. Did you mean 'groups'\? .*scale_norm"
    with pytest.raises(ConfigError, match=message):
        make(group=8)


def test_option_of_a_mechanism_without_any_is_refused():
    with pytest.raises(ConfigError, match=r"^half: expected no options, got 'value'"):
        Mechanism("half", {"value": 0.4})


@pytest.mark.parametrize("option", ["size", "device", "dtype"])
def test_what_the_site_decides_is_no_option_of_a_mechanism(option):
    with pytest.raises(ConfigError, match=f"^nam: expected a known option, got '{option}'"):
        Mechanism("nam", {option: 3})


@pytest.mark.parametrize("value", [[8], (8,), {}, object, float("nan"), float("inf")], ids=repr)
def test_option_that_cannot_be_written_down_is_refused(value):
    with pytest.raises(ConfigError, match=r"^ean: expected groups to be a finite number, a word,"):
        Mechanism("ean", {"groups": value})


@pytest.mark.parametrize(
    ("text", "options", "label"),
    [
        ("ean", {}, "ean"),
        (" ean ( ) ", {}, "ean"),
        ("ean(groups=8)", {"groups": 8}, "ean(groups=8)"),
        ("nam(weighting=mean)", {"weighting": "mean"}, "nam(weighting=mean)"),
        ("nam(weighting='mean')", {"weighting": "mean"}, "nam(weighting=mean)"),
        (
            "nam( weighting = rms , detach_importance = False )",
            {"weighting": "rms", "detach_importance": False},
            "nam(detach_importance=False,weighting=rms)",
        ),
        ("nam-channel(eps=1e-3)", {"eps": 0.001}, "nam-channel(eps=0.001)"),
        ("nam-channel(eps=-1)", {"eps": -1}, "nam-channel(eps=-1)"),
        ("nam(weighting='a b')", {"weighting": "a b"}, "nam(weighting='a b')"),
        ("nam(weighting='True')", {"weighting": "True"}, "nam(weighting='True')"),
        ("nam(weighting='8')", {"weighting": "8"}, "nam(weighting='8')"),
        ("nam(weighting=None)", {"weighting": None}, "nam(weighting=None)"),
    ],
)
def test_text_is_read_and_written_in_one_canonical_form(text, options, label):
    mechanism = Mechanism.parse(text)
    assert mechanism == Mechanism(mechanism.name, options)
    assert dict(mechanism.options) == options
    assert {type(v) for v in mechanism.options.values()} == {type(v) for v in options.values()}
    assert mechanism.label == str(mechanism) == label
    assert Mechanism.parse(label) == mechanism


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ean(groups=8",
        "ean groups=8",
        "ean)",
        "ean(8)",
        "ean(groups)",
        "ean(groups==8)",
        "ean(groups=8)(eps=1)",
        "ean(groups=8, groups=4)",
        "ean(**options)",
        "ean(groups=__import__('os').getpid())",
        "ean(groups=4+4)",
        "ean(groups=l-2)",
        "ean(groups='8)",
        "ean(groups=\0)",
        "ean(groups=" + "(" * 500 + ")",
    ],
)
def test_text_of_another_form_is_refused_with_the_form(text):
    with pytest.raises(ConfigError, match=r"^attention: expected a mechanism such as se or ean\("):
        Mechanism.parse(text)


def test_reading_text_calls_nothing(tmp_path):
    target = tmp_path / "made"
    with pytest.raises(ConfigError):
        Mechanism.parse(f"ean(groups=open({str(target)!r}, 'w'))")
    assert not target.exists()


def test_mechanism_is_a_value():
    mechanism = Mechanism("nam", {"weighting": "mean", "eps": 1e-3})
    same = Mechanism("nam", {"eps": 1e-3, "weighting": "mean"})
    assert mechanism == same == copy.deepcopy(same) == pickle.loads(pickle.dumps(same))
    assert len({mechanism, same, Mechanism("nam")}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        mechanism.name = "ean"


def test_mechanism_keeps_a_copy_of_its_options():
    options = {"groups": 8}
    mechanism = Mechanism("ean", options)
    options["groups"] = 4
    assert mechanism.options == {"groups": 8}


def test_list_is_split_between_mechanisms_only():
    text = "none, half,ean(groups=8, scale_norm=l1) ,nam(weighting=mean),se"
    assert [mechanism.label for mechanism in parse_list(text)] == [
        "none",
        "half",
        "ean(groups=8,scale_norm=l1)",
        "nam(weighting=mean)",
        "se",
    ]


def test_list_with_a_gap_is_refused():
    with pytest.raises(ConfigError, match=r"expected a mechanism such as .*, got ''"):
        parse_list("none,,se")


def test_list_with_one_mechanism_twice_is_refused():
    with pytest.raises(
        ConfigError, match=r"expected each mechanism once, got 'ean\(groups=8\)' tw"
    ):
        parse_list("ean(groups=8),se,ean( groups = 8 )")


def test_the_same_mechanism_with_other_options_is_another():
    assert len(parse_list("ean,ean(groups=8)")) == 2
