"""The model card of an artifact: Markdown for people, with a head of YAML for the Hub.

Names of classes, metrics and the like come from files that somebody else may have written, so every
one is escaped: no text of theirs becomes a tag, a link or a table's cell of its own.
"""

import html
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ._artifact_info import ArtifactInfo

_NAMES = {
    "top1_error": "Top-1 error (%)",
    "top5_error": "Top-5 error (%)",
    "best_top1_error": "Lowest top-1 error of any epoch (%)",
    "best_epoch": "Epoch of the lowest error",
    "epoch": "Epochs",
    "loss": "Loss",
    "images": "Images",
    "images_per_second": "Images per second in evaluation",
    "parameters": "Parameters",
    "macs": "Multiply-adds",
    "multiply_adds": "Multiply-adds",
    "paper_macs": "Multiply-adds, as papers count",
    "latency_ms": "Latency (ms)",
}
_SHOWN = 200  # classes; a list of thousands would hide the rest of the card
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~^$:-])")


def card(info: ArtifactInfo, repo_id: str, license: str | None, size: int) -> str:
    """Return the content of README.md.

    Args:
        info: The artifact's page.
        repo_id: Where it goes.
        license: By the Hub's names; None says that there is none.
        size: Of the weights, in bytes.
    """
    parts = [
        f"---\n{_head(info, license)}\n---",
        f"# {escape(repo_id.split('/')[-1])}",
        _about(info),
        "## Measured",
        _measured(info, size),
        *_slimmed(info),
        "## Use it",
        _use(info, repo_id),
        *_images(info),
        *_classes(info),
        "## Licence",
        f"Weights: {escape(license)}." if license else _NO_LICENCE,
        "## Where it comes from",
        _origin(info),
    ]
    return "\n\n".join(parts) + "\n"


_NO_LICENCE = "None was given. Ask the author before you use the weights."


def _head(info: ArtifactInfo, license: str | None) -> str:
    from huggingface_hub import ModelCardData

    tags = ["normattn", "image-classification"]
    tags += [info.host.name] if info.host else []
    tags += sorted({record.mechanism for record in info.grafts})
    tags += ["slimmed"] if info.slimming is not None else []
    data = ModelCardData(
        library_name="normattn", pipeline_tag="image-classification", tags=tags, license=license
    )
    return str(data.to_yaml()).strip()


def _about(info: ArtifactInfo) -> str:
    what = info.host.name if info.host else f"{info.builder} (a class of its author's own)"
    sites: dict[str, int] = {}
    for record in info.grafts:
        options = ", ".join(f"{key}={value}" for key, value in record.options.items())
        label = f"{record.mechanism}({options})" if options else record.mechanism
        sites[label] = sites.get(label, 0) + 1
    attention = " and ".join(f"{label} at {count} sites" for label, count in sites.items())
    sentence = f"An image classifier: {what}, with {attention or 'no attention'}"
    return escape(sentence + (", slimmed." if info.slimming is not None else "."))


def _measured(info: ArtifactInfo, size: int) -> str:
    rows = [(_NAMES.get(name, name), _number(value)) for name, value in _flat(info.metrics or {})]
    if not rows:
        return f"Nothing was recorded with the model. Its weights take {_number(size)} bytes."
    return _table(("", "value"), [*rows, ("Weights (bytes)", _number(size))])


def _slimmed(info: ArtifactInfo) -> Iterator[str]:
    removed = info.slimming
    if removed is None:
        return
    yield "## Slimmed"
    before, after = (dict(_flat(removed.get(name) or {})) for name in ("before", "after"))
    rows = [
        (_NAMES.get(name, name), _number(value), _number(after[name]), _ratio(value, after[name]))
        for name, value in before.items()
        if name in after
    ]
    if rows:
        yield _table(("", "before", "after", "ratio"), rows)
    words = [
        f"{name}: {', '.join(f'{k} {_number(v)}' for k, v in _flat({name: removed[name]}))}"
        for name in ("target", "criterion", "across", "rounds")
        if name in removed
    ]
    if words:
        yield escape("; ".join(words)) + "."


def _use(info: ArtifactInfo, repo_id: str) -> str:
    load = "normattn.load(folder)"
    if info.builder:
        load = f"normattn.load(folder, builder=...)  # a function that returns a new {info.builder}"
    lines = [
        "import normattn",
        "from huggingface_hub import snapshot_download",
        "",
        f"folder = snapshot_download({repo_id!r})",
        f"model = {load}",
    ]
    if info.classes is not None and info.preprocessing is not None:
        lines.append('print(model.predict("image.jpg"))')
    code = "\n".join(line.replace("`", "'") for line in lines)
    return f"```python\n{code}\n```\n\n`pip install normattn`. No code of the model's is run."


def _images(info: ArtifactInfo) -> Iterator[str]:
    if info.preprocessing is not None:
        yield "## Images"
        rows = [(name, _number(value)) for name, value in info.preprocessing.items()]
        yield _table(("", "value"), rows)
        yield "`model.predict` does this; `mean` and `std` are of pixels in 0..1."


def _classes(info: ArtifactInfo) -> Iterator[str]:
    if info.classes is not None:
        yield f"## Classes ({len(info.classes)})"
        more = len(info.classes) - _SHOWN
        shown = ", ".join(escape(name) for name in info.classes[:_SHOWN])
        yield shown + (f", and {more} more, which are in config.json." if more > 0 else "")


def _origin(info: ArtifactInfo) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in info.versions.items())
    return f"Saved by {escape(versions)}. SHA-256 of what was pushed: `{escape(info.sha256)}`."


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name} ")
        else:
            yield prefix + str(name), value


def _number(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(map(_number, value))
    return str(value)


def _ratio(before: Any, after: Any) -> str:
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (before, after))
    return f"{before / after:.2f}×" if numbers and after else "–"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [[escape(cell) for cell in row] for row in (head, *rows)]
    lines.insert(1, [":---", *["---:"] * (len(lines[0]) - 1)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def escape(text: str) -> str:
    """Return ``text`` as Markdown that shows it as it is, on one line."""
    return _SPECIAL.sub(r"\\\1", html.escape(" ".join(str(text).split()), quote=False))
