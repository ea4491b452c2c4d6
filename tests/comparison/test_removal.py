"""Removal curves: zeros are removal, a point is measured once, words say no more than figures."""

import copy
import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import normattn
from normattn.comparison import _removal_run
from normattn.comparison._chart_files import as_file
from normattn.comparison._removal_mask import inexact, without
from normattn.comparison._removal_page import removal_document
from normattn.comparison._removal_picture import curve_rows, draw_curves
from normattn.comparison._removal_records import LEAST, MOST, RANDOM, Point, RemovalRecords
from normattn.comparison._removal_run import _first, _ranked
from normattn.comparison._removal_summary import curves
from normattn.comparison.removal import (
    Removal,
    missing,
    read_removal,
    removal_curves,
    removal_table,
    summarise_removal,
    write_removal,
)
from normattn.data import open_data
from normattn.errors import ConfigError, DataError, RunError
from normattn.model._groups import Group, find_groups
from normattn.model._slim_cut import apply, cuts
from normattn.model.salience import salience
from normattn.model.slim import dead_channels, plan_slim

EXAMPLE = torch.zeros(1, 3, 32, 32)
SMALL = Removal(("bn-scale", "nam"), images=20, calibration=20, draws=2, fractions=(0.3, 0.6))
CURVES = 2 * 2 + 2 * 2  # two orders a criterion, two random ones a scope; of two points each


def trained(host, mechanism, **options):
    """Return a host whose norms are as if it was trained: no two alike, some shifts large."""
    torch.manual_seed(0)
    build = {"resnet20": {}, "mobilenetv2_050": {"stem": "cifar"}, "resnet26": {"stem": "cifar"}}
    model = normattn.host(host, 10, **build[host])
    if mechanism != "none":
        normattn.graft(model, mechanism, input_size=32, **options)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, mean=0.3, std=0.5)
    model.train()
    with torch.no_grad():
        model(torch.randn(4, 3, 32, 32))
    return model.eval()


@pytest.mark.parametrize(
    ("host", "mechanism", "options"),
    [
        ("resnet20", "none", {}),
        ("resnet20", "nam", {"weighting": "mean"}),
        ("resnet20", "ean", {"groups": 4}),
        ("resnet20", "se", {}),
        ("resnet20", "bam", {}),
        ("resnet20", "half", {}),
        ("resnet26", "nam-channel", {"weighting": "mean"}),
        ("mobilenetv2_050", "nam-channel", {"weighting": "mean"}),
    ],
)
def test_channels_of_zeros_compute_what_the_slimmed_model_computes(host, mechanism, options):
    model = trained(host, mechanism, **options)
    groups = find_groups(model, EXAMPLE).groups
    plan = plan_slim(model, EXAMPLE, {"channels": 0.4}, "random", round_to=1)
    removed = {group.name: group.removed for group in plan.groups}
    assert len(removed) == len(groups)
    assert all(removed.values())
    assert inexact(model, groups) == ()
    images = torch.randn(3, 3, 32, 32)
    slimmed = copy.deepcopy(model)
    apply(slimmed, cuts((group, removed[group.name]) for group in groups))  # as `slim`, no narrower
    with torch.inference_mode():
        whole = model(images)
        with without(model, groups, removed):
            masked = model(images)
        assert_close(masked, slimmed(images), rtol=1e-4, atol=1e-5)
        assert (masked - whole).abs().max() > 0.01


def test_dead_channels_go_without_a_trace_as_slimming_lets_them_go():
    model = trained("resnet26", "nam-channel")
    model.layer2[1].bn2.weight.data[:12] = 0  # read by a 1×1 convolution: no border to spoil it
    model.layer2[1].bn2.bias.data[:12] = 3
    groups = find_groups(model, EXAMPLE).groups
    dead = dead_channels(model, EXAMPLE)
    removed = {"layer2.1.conv2": range(8)}
    images = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        whole = model(images)
        with without(model, groups, removed, dead):
            assert_close(model(images), whole, rtol=0, atol=0)
        with without(model, groups, removed):
            assert (model(images) - whole).abs().max() > 0.01


def test_the_model_is_what_it_was_afterwards_also_after_an_error():
    model = trained("resnet20", "nam-channel")
    groups = find_groups(model, EXAMPLE).groups
    before = copy.deepcopy(model.state_dict())

    def interrupted():
        with without(model, groups, {group.name: (0, 1) for group in groups}):
            assert not torch.equal(model.conv1.weight, before["conv1.weight"])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert_close(model.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize(("mechanism", "kind"), [("cbam", "CBAM"), ("triplet", "Triplet")])
def test_where_zeros_are_not_removal_is_said(mechanism, kind):
    model = trained("resnet20", mechanism)
    (line,) = inexact(model, find_groups(model, EXAMPLE).groups)
    assert line.startswith(f"{kind}")


def test_a_run_takes_dead_channels_for_what_they_are(digits, tmp_path):
    torch.manual_seed(0)
    narrow = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 10, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip
    narrow[1].weight.data[::2] = 0
    narrow[1].bias.data[::2] = 1
    removal = replace(SMALL, criteria=("bn-scale",), fractions=(0.5,))
    records = removal_curves(narrow, digits, tmp_path, removal, device="cpu")
    (least,) = records.curve(LEAST, "bn-scale", 0, None)
    (whole,) = [point for point in records.points if not point.order]
    assert least.removed == 0.5
    assert least.loss == pytest.approx(whole.loss)


def test_units_go_whole_the_least_salient_first_and_never_all():
    group = Group("g", 6, ((0, 3), (1, 4), (2, 5)), (), closes=False)
    units = _ranked(group, torch.tensor([0.9, 0.1, 0.5, 0.0, 0.1, 0.5]))
    assert units == [(1, 4), (0, 3), (2, 5)]
    assert _first(units, 0.3) == [1, 4]
    assert _first(units, 0.9) == [0, 1, 3, 4]
    assert _first(units[:1], 0.9) == []


@pytest.fixture(scope="module")
def digits():
    return open_data("digits")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    host = normattn.host("resnet20", 10, in_chans=1)
    return normattn.graft(host, "nam-channel", input_size=8).eval()


@pytest.fixture
def evaluations(monkeypatch):
    """Count the evaluations; from the number in ``stop`` on they are cut short."""
    real = _removal_run.evaluate
    calls = {"done": 0, "stop": 1000}

    def watched(*args, **kwargs):
        if calls["done"] == calls["stop"]:
            raise KeyboardInterrupt
        calls["done"] += 1
        return real(*args, **kwargs)

    monkeypatch.setattr(_removal_run, "evaluate", watched)
    return calls


def content(folder):
    return json.loads((folder / "salience.json").read_text())


def test_every_point_is_measured_once_and_a_cut_run_ends_as_an_uncut_one(
    model, digits, tmp_path, evaluations
):
    before = copy.deepcopy(model.state_dict())
    removal_curves(model, digits, tmp_path / "uncut", SMALL, device="cpu")
    assert evaluations["done"] == 1 + 2 * CURVES
    evaluations.update(done=0, stop=7)
    with pytest.raises(KeyboardInterrupt):
        removal_curves(model, digits, tmp_path / "cut", SMALL, device="cpu")
    assert len(content(tmp_path / "cut")["points"]) == 7
    evaluations["stop"] = 1000
    records = removal_curves(model, digits, tmp_path / "cut", SMALL, device="cpu")
    assert evaluations["done"] == 1 + 2 * CURVES
    assert records.points == read_removal(tmp_path / "uncut").points
    removal_curves(model, digits, tmp_path / "cut", SMALL, device="cpu")
    assert evaluations["done"] == 1 + 2 * CURVES
    assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_each_order_takes_the_channels_that_it_is_named_after(model, digits, tmp_path, monkeypatch):
    removed = []
    real = _removal_run.without

    def watched(model, groups, channels, dead):
        removed.append(channels)
        return real(model, groups, channels, dead)

    monkeypatch.setattr(_removal_run, "without", watched)
    once = replace(SMALL, criteria=("magnitude",), fractions=(0.25,))
    removal_curves(model, digits, tmp_path, once, device="cpu")
    whole, least, most, *drawn = removed
    assert whole == {}
    scores = salience(model, "magnitude", example_input=torch.zeros(1, 1, 8, 8)).scores
    for name, values in scores.items():
        order = values.argsort(stable=True).tolist()
        count = len(order) // 4
        assert least[name] == sorted(order[:count])
        assert most[name] == sorted(order[-count:])
        assert [len(channels[name]) for channels in drawn] == [count, count]
    assert drawn[0] != drawn[1]


def test_criteria_can_be_added_and_share_the_random_orders_of_their_groups(
    model, digits, tmp_path, evaluations
):
    removal_curves(model, digits, tmp_path, SMALL, device="cpu")
    evaluations["done"] = 0
    more = replace(SMALL, criteria=("magnitude",))
    records = removal_curves(model, digits, tmp_path, more, device="cpu")
    assert evaluations["done"] == 2 * 2
    assert list(records.criteria) == ["bn-scale", "nam", "magnitude"]
    everything = list(records.groups)
    assert records.scopes[0] == everything
    assert len(records.scopes[1]) == 3  # NAM ranks what it gates, and is tested on that
    assert [row.groups for row in summarise_removal(records)] == [12, 3, 12]


def test_on_common_groups_all_criteria_remove_from_the_same_ones(model, digits, tmp_path):
    common = replace(SMALL, scope="common", fractions=(0.5,))
    records = removal_curves(model, digits, tmp_path, common, device="cpu")
    assert len(records.scopes) == 1
    assert len(records.scopes[0]) == 3
    least = records.curve(LEAST, "bn-scale", 0, None)
    most = records.curve(MOST, "bn-scale", 0, None)
    assert [p.removed for p in least] == [p.removed for p in most] == [0.5]


def test_by_default_a_criterion_that_ranks_nothing_is_left_out_with_its_reason(digits, tmp_path):
    plain = normattn.host("resnet20", 10, in_chans=1)
    said = []
    removal = replace(SMALL, criteria=(), draws=1, fractions=(0.5,))
    records = removal_curves(
        plain, digits, tmp_path, removal, device="cpu", progress=lambda e: said.append(e)
    )
    assert set(records.left_out) == {"nam", "gate"}
    assert set(records.criteria) == {"bn-scale", "taylor", "magnitude", "random"}
    assert any("nam is left out" in event.get("text", "") for event in said)
    assert any(line.startswith("nam: left out") for line in missing(records))
    with pytest.raises(ConfigError, match=r"'nam' can rank, got none"):
        removal_curves(plain, digits, tmp_path / "x", SMALL, device="cpu")


def test_images_that_are_evaluated_are_not_those_that_criteria_look_at(
    model, digits, tmp_path, monkeypatch
):
    seen = []
    monkeypatch.setattr(
        _removal_run, "salience", lambda m, name, data, **options: seen.extend(data) or None
    )
    run = _removal_run.Run(
        model, digits, tmp_path, replace(SMALL, criteria=("taylor",)), None, "cpu", None
    )
    with pytest.raises(AttributeError):  # there is no salience to save
        run.rank(find_groups(model, torch.zeros(1, 1, 8, 8)))
    images, labels = (torch.cat(parts) for parts in zip(*seen, strict=True))
    assert len(images) == 20
    assert torch.bincount(labels).tolist() == [2] * 10
    pixels = images.mul(digits.std[0]).add(digits.mean[0]).mul(255).round().to(torch.uint8)
    train = {image.numpy().tobytes() for image in digits.train.images}
    assert all(image.numpy().tobytes() in train for image in pixels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"criteria": ("nan",)}, "Did you mean 'nam'"),
        ({"scope": "commen"}, "Did you mean 'common'"),
        ({"images": 0}, "expected limit of 1 or more, got 0"),
        ({"draws": 0}, "expected draws of 1 or more, got 0"),
        ({"calibration": -1}, "expected calibration of 1 or more"),
        ({"fractions": ()}, "ascending order, got none"),
        ({"fractions": (0.5, 0.2)}, "ascending order, got 0.5, 0.2"),
        ({"fractions": (0.5, 1.0)}, "between 0 and 1"),
    ],
)
def test_what_cannot_be_asked_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Removal(**options)


def test_more_images_than_there_are_are_refused(model, digits, tmp_path):
    with pytest.raises(DataError, match=r"at most the \d+ validation images of digits, got 9999"):
        removal_curves(model, digits, tmp_path, Removal(images=9999), device="cpu")


def test_data_of_other_classes_are_refused_and_nothing_is_kept(digits, tmp_path):
    other = normattn.host("resnet20", 7, in_chans=1)
    with pytest.raises(ConfigError, match="expected one output for each of the 10 classes"):
        removal_curves(other, digits, tmp_path, SMALL, device="cpu")
    assert not (tmp_path / "salience.json").exists()


def test_a_folder_of_another_run_is_refused_with_what_differs(model, digits, tmp_path):
    once = replace(SMALL, draws=1, fractions=(0.5,))
    removal_curves(model, digits, tmp_path, once, device="cpu")
    with pytest.raises(RunError, match=r"settings\.seed: 0 → 1"):
        removal_curves(model, digits, tmp_path, replace(once, seed=1), device="cpu")
    changed = copy.deepcopy(model)
    changed.fc.bias.data[0] += 1
    with pytest.raises(RunError, match="weights: "):
        removal_curves(changed, digits, tmp_path, once, device="cpu")
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "trial.json").write_text("{}")
    with pytest.raises(RunError, match=r"expected an empty folder.*trial\.json"):
        removal_curves(model, digits, tmp_path / "strange", once, device="cpu")


@pytest.mark.parametrize("text", ["", "[]", '{"format": 2}', '{"format": 1, "points": [{}]}'])
def test_a_damaged_record_is_refused_by_its_name(tmp_path, text):
    (tmp_path / "salience.json").write_text(text)
    with pytest.raises(RunError, match=r"salience\.json"):
        read_removal(tmp_path)
    with pytest.raises(RunError, match="got none in it"):
        read_removal(tmp_path / "nowhere")


def recorded(least, most, *random, whole=90.0, classes=10, images=10_000, criterion="bn-scale"):
    """Return a record with these accuracies at 30 %."""
    curves = [
        (LEAST, criterion, 0, None, least),
        (MOST, criterion, 0, None, most),
        *((RANDOM, None, 0, draw, value) for draw, value in enumerate(random)),
    ]
    points = [Point(*curve, 0.3, 0.3, value, 1.0) for *curve, value in curves]
    settings = {"fractions": [0.3], "draws": len(random), "seed": 0, "calibration": 20}
    about = {
        "host": "a_host|<b>", "attention": ["nam"], "data": "digits", "classes": classes,
        "versions": {"torch": "2"}, "commit": None, "machine": {"name": "cpu"},
    }  # fmt: skip
    return RemovalRecords(
        run={"settings": settings, "data": {"val": images}},
        about=about,
        groups={"a": 8},
        scopes=[["a"]],
        criteria={criterion: {"scope": 0, "silent": [["b", "no norm; by magnitude"]]}},
        points=[Point("", None, None, None, 0.0, 0.0, whole, 1.0), *points],
    )


@pytest.mark.parametrize(
    ("record", "verdict", "words"),
    [
        (recorded(80.0, 40.0, 60.0, 61.0, 62.0), "better", "keeps 19.0 points more than random"),
        (recorded(40.0, 80.0, 60.0, 61.0, 62.0), "worse", "its scores mislead here"),
        (recorded(63.0, 60.0, 60.0, 61.0, 62.0), "no difference", "which chance can explain"),
        (recorded(80.0, 40.0, 30.0, 60.0, 90.0), "no difference", "which chance can explain"),
        (recorded(14.0, 10.0, 10.0, 10.0, 10.0), "nothing left", "guesses in either order"),
        (recorded(80.0, 40.0, 60.0), "unknown", "nobody can say"),
        (recorded(80.0, 40.0, 60.0, 60.0, criterion="random"), "control", "it is the control"),
        (recorded(62.0, 40.0, 60.0, 60.0, images=100), "no difference", "which chance can explain"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_verdict_claims_no_more_than_the_figures(record, verdict, words):
    (row,) = summarise_removal(record)
    assert row.verdict == verdict
    assert words in row.sentence


def test_the_interval_is_the_one_more_random_order_would_fall_into():
    (row,) = summarise_removal(recorded(80.0, 40.0, 58.0, 60.0, 62.0, images=10**12))
    assert row.chance == pytest.approx(4.302653 * 2 * (4 / 3) ** 0.5, rel=1e-5)
    images_only = summarise_removal(recorded(80.0, 40.0, 50.0, 50.0, images=400))[0]
    assert images_only.chance == pytest.approx(1.96 * 100 * (2 * 0.25 / 400) ** 0.5)


def test_the_area_is_the_mean_height_between_the_two_curves():
    (row,) = summarise_removal(recorded(80.0, 40.0, 60.0, 60.0))
    assert row.area == pytest.approx((90 + 80) / 2 - (90 + 40) / 2)
    assert row.area_chance == 0
    (apart,) = summarise_removal(recorded(80.0, 40.0, 50.0, 54.0))
    assert apart.area_chance == pytest.approx(12.706205 * 2**0.5 * 2**0.5)  # heights 70 and 72


def test_a_criterion_that_is_not_finished_has_no_row_but_is_named():
    record = recorded(80.0, 40.0, 60.0, 60.0)
    record.points.pop()
    assert summarise_removal(record) == ()
    assert "bn-scale: not finished" in missing(record)


def test_the_page_and_the_picture_come_from_the_record_alone_and_show_text_as_text(tmp_path):
    recorded(80.0, 40.0, 60.0, 61.0, 62.0).write(tmp_path)
    page = write_removal(tmp_path).read_text()
    assert "a_host|&lt;b&gt;" in page
    assert "a_host|<b>" not in page
    words = (tmp_path / "salience.md").read_text()
    assert r"a\_host\|&lt;b&gt;" in words
    assert "| bn-scale | 1 of 1 | 80.0 | 61.0 | 40.0 | +19.0 ±" in words
    assert "| 30.0 | 80.0 | 61.0 (60.0 to 62.0) | 40.0 |" in words
    assert "of which it says nothing (no norm): b." in words
    assert "| bn-scale | b | no norm; by magnitude |" in words
    assert "](salience.svg)" in words
    picture = (tmp_path / "salience.svg").read_text()
    texts = {e.text for e in ElementTree.fromstring(picture).iter() if e.tag.endswith("text")}
    assert {"bn-scale (1 groups)", "least salient first", "most salient first"} <= texts
    write_removal(tmp_path)
    assert (tmp_path / "salience.svg").read_text() == picture


def test_a_record_without_a_finished_criterion_has_a_page_too(tmp_path):
    record = recorded(80.0, 40.0, 60.0, 60.0)
    record.points.pop()
    record.write(tmp_path)
    page = write_removal(tmp_path).read_text()
    assert "No criterion is finished." in page
    assert "bn-scale: not finished" in page
    assert not (tmp_path / "salience.svg").exists()
    assert removal_table(record).row_count == 0


def test_the_curves_of_a_chart_are_the_points_of_the_record():
    found = curves(recorded(80.0, 40.0, 60.0, 61.0, 65.0), "bn-scale")
    rows = {row["order"]: row for row in curve_rows(found) if row["removed"] == 30}
    assert {order: row["accuracy"] for order, row in rows.items()} == {
        "least salient first": 80.0, "most salient first": 40.0, "random (and its range)": 62.0,
    }  # fmt: skip
    spread = rows["random (and its range)"]
    assert (spread["lowest"], spread["highest"]) == (60.0, 65.0)
    marks = ElementTree.fromstring(as_file(draw_curves(found, 10.0), "svg"))
    points = [e for e in marks.iter() if e.get("aria-roledescription") == "point"]
    assert len(points) == 6  # three orders, the whole model and 30 %


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (recorded(80.0, 40.0, 60.0, 61.0, 62.0), "By bn-scale, yes: removing least-salient first"),
        (recorded(40.0, 80.0, 60.0, 61.0, 62.0), "By bn-scale, no, it misleads: "),
        (recorded(63.0, 60.0, 60.0, 61.0, 62.0), "By bn-scale, no more than chance does: "),
        (recorded(14.0, 10.0, 10.0, 10.0, 10.0), "By bn-scale, nothing can be told: "),
        (recorded(80.0, 40.0, 60.0), "By bn-scale, nobody can say, with one random order: "),
        (
            recorded(80.0, 40.0, 60.0, 61.0, criterion="taylor"),
            "No criterion that is made of",
        ),
    ],
)
def test_the_page_answers_whether_the_scale_factor_knows(record, words):
    first, second = removal_document(record).verdict
    assert words in first
    assert second.startswith("Over all fractions ")


def test_the_command_says_what_differs_from_the_usual():
    command = removal_document(recorded(80.0, 40.0, 60.0, 61.0)).command
    assert command == (
        "normattn salience MODEL --data digits --criteria bn-scale --fractions 0.3 --draws 2 "
        "--calibration 20 --seed 0 --out runs/again"
    )


def test_the_best_criterion_is_named_only_where_chance_does_not_explain_it():
    sure = removal_document(recorded(80.0, 40.0, 60.0, 60.0)).verdict[1]
    assert "bn-scale separates them best: least-salient first keeps 20.0 points more" in sure
    unsure = removal_document(recorded(64.0, 60.0, 40.0, 80.0)).verdict[1]
    assert unsure == "Over all fractions no criterion separates channels better than chance."


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: content.update(format=9), "salience.json is of format 9"),
        (
            lambda content: content["points"].append({"order": "spiral"}),
            "1 point holds no ",
        ),
        (
            lambda content: content["points"][1].update(accuracy=float("nan")),
            "1 point holds no ",
        ),
        (lambda content: content["run"].update(settings=None), "which fractions were removed"),
        (lambda content: content["about"].clear(), "how many classes there are"),
        (lambda content: content["points"].pop(0), "what the whole model&#39;s accuracy is"),
        (
            lambda content: content.update(criteria={"nam": {"scope": 7}}),
            "which groups it was",
        ),
        (lambda content: content.update(groups=[], refused={"a": 1}, inexact=3), "Which channels"),
    ],
)
def test_what_a_page_cannot_read_of_a_record_is_said_and_the_rest_is_shown(tmp_path, change, said):
    recorded(80.0, 40.0, 60.0, 61.0).write(tmp_path)
    content = json.loads((tmp_path / "salience.json").read_text())
    change(content)
    (tmp_path / "salience.json").write_text(json.dumps(content))
    assert said in write_removal(tmp_path).read_text()


def test_of_a_torn_record_there_is_a_page_that_says_so_and_of_none_there_is_none(tmp_path):
    (tmp_path / "salience.json").write_text('{"format": 1, "poin')
    assert "salience.json cannot be read" in write_removal(tmp_path).read_text()
    with pytest.raises(RunError, match=r"salience\.json"):
        write_removal(tmp_path / "nowhere")
