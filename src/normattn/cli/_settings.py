"""Settings from a YAML file and from `--set`: read strictly, for a typo must never be ignored."""

import inspect
import reprlib
import types
import typing
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import typer
import yaml

from ..errors import ConfigError, unknown

LIMIT = 1_000_000  # bytes; a settings file is a page of text
MOST_SEEDS = 1000
LISTS = {"attention", "seeds", "sites"}  # comma-separated on the command line, lists in a file
FILE_FIELDS = f"{__name__}.fields"  # where a context keeps the file's recipe fields
WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "text", Path: "a path"}


class _StrictLoader(yaml.SafeLoader):
    """The safe loader, which also refuses what YAML would pass over in silence."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):  # a few of them nested grow without bound
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="aliases are not supported", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                problem = f"the key {key.value!r} stands there twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def use_file(ctx: typer.Context, path: Path | None) -> Path | None:
    """Take the options of this command from a file; the command line wins over it.

    The callback of `--config`. It must be eager, so that the other options find their values.

    Raises:
        ConfigError: the file cannot be read, or holds an unknown key or a value of a wrong type.
    """
    if path is None or ctx.resilient_parsing:
        return path
    options = {
        max(p.opts, key=len)[2:]: str(p.name)
        for p in ctx.command.params
        if p.param_type_name == "option" and p.name not in ("config", "help")
    }
    hints = typing.get_type_hints(inspect.unwrap(ctx.command.callback or use_file))
    values = {}
    for key, value in read_file(path).items():
        option = str(key).replace("_", "-")
        if option not in options:
            raise ConfigError(unknown(str(path), "setting", str(key), options))
        name = options[option]
        if option == "set":
            ctx.meta[FILE_FIELDS] = _fields(f"{path}: {key}", value)
        else:
            values[name] = _typed(f"{path}: {key}", value, hints[name], option)
    ctx.default_map = {**(ctx.default_map or {}), **values}
    return path


def read_file(path: Path) -> dict[Any, Any]:
    """Return the mapping in a YAML file; raise ConfigError with the line where it is not one."""
    try:
        with path.open("rb") as file:
            content = file.read(LIMIT + 1)
    except OSError as error:
        raise ConfigError(
            f"{path}: expected a readable settings file, got {error.strerror}. Check --config."
        ) from error
    if len(content) > LIMIT:
        raise ConfigError(f"{path}: expected at most {LIMIT:,} bytes of settings, got more.")
    try:
        settings = _load(content.decode())
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: expected text in UTF-8, got the byte {content[error.start]:#04x} at offset "
            f"{error.start}. Save the file as UTF-8."
        ) from error
    except (yaml.YAMLError, RecursionError) as error:
        reason = _reason(error)
        raise ConfigError(f"{path}: expected YAML of `key: value` lines; {reason}.") from error
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        got = type(settings).__name__
        raise ConfigError(f"{path}: expected `key: value` lines, got a {got}.")
    return settings


def recipe_fields(ctx: typer.Context, pairs: list[str], epochs: int | None) -> dict[str, Any]:
    """Return the recipe fields that were set, the command line before the file.

    Args:
        ctx: The command's context, which knows the settings of the file.
        pairs: `key=value` texts of `--set`.
        epochs: The value of `--epochs`, a shorthand for `--set epochs=N`.
    """
    given = _parse_pairs(pairs)
    file = ctx.meta.get(FILE_FIELDS, {})
    shorthand = {} if epochs is None else {"epochs": epochs}
    beside = file if epochs == (ctx.default_map or {}).get("epochs") else given
    if shorthand and "epochs" in beside:
        raise ConfigError("epochs: expected one value, got `set` and `epochs`. Drop one.")
    return {**file, **shorthand, **given}


def parse_seeds(text: str) -> tuple[int, ...]:
    """Return the seeds: `3` is a count and gives 0, 1, 2; `0,1,5` (or `5,`) lists them."""
    parts = [part.strip() for part in text.removesuffix(",").split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise ConfigError(f"--seeds: expected a count or a list such as 0,1,5, got {text!r}.")
    numbers = tuple(int(part[:20]) for part in parts)
    if "," in text:
        return numbers
    if not 1 <= numbers[0] <= MOST_SEEDS:
        raise ConfigError(f"--seeds: expected 1 to {MOST_SEEDS} seeds, got {text}.")
    return tuple(range(numbers[0]))


def parse_sites(text: str | None) -> str | tuple[str, ...] | None:
    """Return the sites as `graft` takes them: a word, or several patterns."""
    if text is None:
        return None
    parts = tuple(part.strip() for part in text.split(",") if part.strip())
    if not parts:
        raise ConfigError("--sites: expected 'blocks', 'stages' or patterns, got nothing.")
    return parts[0] if len(parts) == 1 else parts


def _load(text: str) -> Any:
    loader = _StrictLoader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    mark = getattr(error, "problem_mark", None)
    line = f" in line {mark.line + 1}" if mark else ""
    return f"{getattr(error, 'problem', None) or error}{line}"


def _parse_pairs(pairs: list[str]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        key = key.strip().replace("-", "_")
        if not equals or not key:
            raise ConfigError(f"--set: expected key=value, got {pair!r}. Example: --set lr=0.05.")
        if key in fields:
            raise ConfigError(f"--set {key}: expected one value, got two. Drop one.")
        try:
            fields[key] = _number(_load(text))
        except (yaml.YAMLError, RecursionError) as error:
            raise ConfigError(f"--set {key}: expected a plain value, got {text!r}.") from error
    return fields


def _number(value: Any) -> Any:
    """Return `1e-3` as a number: YAML 1.1 takes it for text, for it has no point."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _typed(who: str, value: Any, hint: Any, option: str) -> Any:
    """Return a file's value as the command line would have given it."""
    kind = next(k for k in (typing.get_args(hint) or (hint,)) if k is not types.NoneType)
    if kind is float:
        value = _number(value)
    if type(value) is kind or (kind is float and type(value) is int):
        return value
    if kind in (str, Path) and type(value) in (str, int, float):
        return str(value)
    if option in LISTS and isinstance(value, list):
        joined = ",".join(_typed(who, item, str, "") for item in value)
        return f"{joined}," if option == "seeds" else joined  # [5] is a seed, 5 a count
    expected = WORDS[kind] + (" or a list" if option in LISTS else "")
    advice = " Put it in quotes." if kind is str and isinstance(value, bool) else ""
    raise ConfigError(f"{who}: expected {expected}, got {reprlib.repr(value)}.{advice}")


def _fields(who: str, value: Any) -> dict[str, Any]:
    """Return the recipe fields below `set:` in a file."""
    if not isinstance(value, dict):
        raise ConfigError(f"{who}: expected `key: value` lines below it, got {value!r}.")
    return {str(key).replace("-", "_"): _number(item) for key, item in value.items()}
