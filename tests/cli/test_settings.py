"""Settings files are read strictly: a typo is never ignored, and the command line wins."""

from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from normattn.cli import _options, _settings
from normattn.cli._common import Commands
from normattn.errors import ConfigError

probe = typer.Typer(cls=Commands, pretty_exceptions_enable=False)
SEEN = {}


@probe.callback()
def group():
    pass


@probe.command()
def show(
    ctx: typer.Context,
    host: str,
    data: _options.Data,
    attention: _options.Attention = "none",
    seeds: Annotated[str, typer.Option()] = "3",
    seed: Annotated[int, typer.Option()] = 0,
    share: Annotated[float, typer.Option()] = 0.5,
    out: Annotated[Path, typer.Option()] = Path("runs/x"),
    train_limit: _options.TrainLimit = None,
    epochs: _options.Epochs = None,
    overrides: _options.Overrides = None,
    pretrained: _options.Pretrained = False,
    config: _options.Config = None,
):
    SEEN.clear()
    SEEN.update({key: value for key, value in locals().items() if key != "ctx"})
    SEEN["fields"] = _settings.recipe_fields(ctx, overrides or [], epochs)


@pytest.fixture
def settings(tmp_path):
    """Write a settings file, run a command with it, and return what the command saw."""

    def run(content, *arguments):
        path = tmp_path / "settings.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        result = CliRunner().invoke(probe, ["show", "host", "--config", str(path), *arguments])
        if result.exit_code == 2:
            raise ConfigError(result.stderr)
        assert result.exit_code == 0, result.output
        return dict(SEEN)

    return run


def test_options_come_from_the_file_in_the_types_of_the_command_line(settings):
    seen = settings(
        "data: digits\nattention: [none, 'ean(groups=8)']\nseeds: [5]\nseed: 7\nshare: 1e-3\n"
        "out: runs/y\ntrain-limit: 64\npretrained: true\n"
    )
    assert seen["data"] == "digits"
    assert seen["attention"] == "none,ean(groups=8)"
    assert _settings.parse_seeds(seen["seeds"]) == (5,)
    assert seen["seed"] == 7
    assert seen["share"] == 0.001
    assert seen["out"] == Path("runs/y")
    assert seen["train_limit"] == 64
    assert seen["pretrained"] is True


def test_the_command_line_wins_over_the_file(settings):
    seen = settings("data: digits\nseed: 7\npretrained: true\n", "--seed", "1", "--no-pretrained")
    assert (seen["seed"], seen["pretrained"], seen["data"]) == (1, False, "digits")


def test_recipe_fields_of_both_are_merged_field_by_field(settings):
    seen = settings("data: d\nset: {lr: 1e-3, momentum: 0.5}\n", "--set", "lr=0.1")
    assert seen["fields"] == {"lr": 0.1, "momentum": 0.5}


def test_epochs_on_the_command_line_win_over_the_file(settings):
    assert settings("data: d\nset: {epochs: 3}\n", "--epochs", "5")["fields"] == {"epochs": 5}
    assert settings("data: d\nepochs: 3\n", "--set", "epochs=5")["fields"] == {"epochs": 5}
    assert settings("data: d\nepochs: 3\n")["fields"] == {"epochs": 3}


@pytest.mark.parametrize(
    ("content", "arguments"),
    [
        ("data: d", ("--epochs", "5", "--set", "epochs=6")),
        ("data: d\nepochs: 3\nset: {epochs: 4}", ()),
    ],
)
def test_epochs_given_twice_in_one_place_are_refused(settings, content, arguments):
    with pytest.raises(ConfigError, match="epochs: expected one value"):
        settings(content, *arguments)


def test_an_empty_file_changes_nothing(settings):
    assert settings("# nothing\n", "--data", "d")["data"] == "d"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("atention: nam", r"known setting, got 'atention'. Did you mean 'attention'"),
        ("config: other.yaml", r"known setting, got 'config'"),
        ("host: resnet20", r"known setting, got 'host'"),  # an argument here, not an option
        ("data: no", r"data: expected text, got False. Put it in quotes"),
        ("data:", r"data: expected text, got None"),
        ("data: [a, b]", r"data: expected text, got \['a', 'b'\]"),
        ("seed: many", r"seed: expected an integer, got 'many'"),
        ("seed: 1.5", r"seed: expected an integer, got 1.5"),
        ("seed: true", r"seed: expected an integer, got True"),
        ("share: half", r"share: expected a number, got 'half'"),
        ("pretrained: 1", r"pretrained: expected true or false, got 1"),
        ("attention: {nam: 1}", r"attention: expected text or a list, got \{'nam': 1\}"),
        ("seeds: [0, yes]", r"seeds: expected text, got True"),
        ("set: lr", r"set: expected `key: value` lines below it, got 'lr'"),
        ("seed: 1\nseed: 2", r"the key 'seed' stands there twice.*line 2"),
        ("set: {lr: 1, lr: 2}", r"the key 'lr' stands there twice"),
        ("a: &x [1]\nb: *x", r"aliases are not supported"),
        ("data: !!python/object/apply:os.system ['true']", r"could not determine a constructor"),
        ("data: [", r"expected YAML"),
        ("[" * 5000, r"nested too deeply"),
        ("- data", r"expected `key: value` lines, got a list"),
        ("seed:\n\t- 1", r"expected YAML.*cannot start any token in line 2"),
        (b"data: \xff\xfe", r"expected text in UTF-8, got the byte 0xff at offset 6"),
        (b"# " + b"x" * 1_000_000, r"expected at most 1,000,000 bytes"),
    ],
)
def test_a_bad_file_is_refused_with_the_place_and_the_reason(settings, content, sentence):
    with pytest.raises(ConfigError, match=sentence):
        settings(content)


def test_a_missing_file_is_refused_with_its_name(cli):
    result = cli("profile", "--config", "nowhere.yaml")
    assert result.exit_code == 2
    assert "nowhere.yaml: expected a readable settings file" in result.stderr


def test_a_value_out_of_range_in_the_file_is_refused_as_on_the_command_line(settings):
    with pytest.raises(ConfigError, match="train-limit"):
        settings("data: d\ntrain-limit: 0\n")


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        ("lr=0.05", 0.05),
        ("lr=1e-3", 0.001),
        ("batch-size=64", 64),
        ("nesterov=true", True),
        ("schedule=cosine", "cosine"),
        ("milestones=[0.3, 0.6]", [0.3, 0.6]),
    ],
)
def test_set_reads_plain_values(settings, pair, value):
    fields = settings("data: d\n", "--set", pair)["fields"]
    assert fields == {pair.partition("=")[0].replace("-", "_"): value}
    assert type(fields.popitem()[1]) is type(value)


@pytest.mark.parametrize("pair", ["lr", "=3", "lr=[1", "lr=!!python/name:os.system"])
def test_a_malformed_set_is_refused(settings, pair):
    with pytest.raises(ConfigError, match="--set"):
        settings("data: d\n", "--set", pair)


def test_a_field_set_twice_is_refused(settings):
    with pytest.raises(ConfigError, match="--set lr: expected one value, got two"):
        settings("data: d\n", "--set", "lr=1", "--set", "lr=2")


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("3", (0, 1, 2)), ("1", (0,)), ("0,1,5", (0, 1, 5)), ("5,", (5,)), (" 2, 4", (2, 4))],
)
def test_seeds_are_a_count_or_a_list(text, seeds):
    assert _settings.parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "0", "-1", "three", "1.5", "0,,1", "1001", "²"])
def test_other_seeds_are_refused(text):
    with pytest.raises(ConfigError, match="--seeds: expected"):
        _settings.parse_seeds(text)


def test_sites_are_a_word_or_patterns():
    assert _settings.parse_sites(None) is None
    assert _settings.parse_sites("blocks") == "blocks"
    assert _settings.parse_sites("layer1.*, layer2.0") == ("layer1.*", "layer2.0")
    with pytest.raises(ConfigError, match="--sites"):
        _settings.parse_sites(" , ")
