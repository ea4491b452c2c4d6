"""How a page's templates are filled: text stays text, in HTML and in Markdown."""

import base64
import hashlib
import re
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ._page_charts import embedded, printable


@cache
def environment(template: str) -> Environment:
    """Return what fills a template, by the ending of its name: ``.html.j2`` or ``.md.j2``."""
    markdown = template.endswith(".md.j2")
    found = Environment(
        loader=PackageLoader("normattn.comparison", ""),
        autoescape=not markdown,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        finalize=_markdown if markdown else _html,
    )
    found.filters["code"] = _fenced
    found.filters["json"] = lambda value: Markup(embedded(value))  # escaped there
    found.filters["checksum"] = _checksum
    return found


def _checksum(text: str) -> str:
    """Name a script or a style sheet in a content security policy."""
    digest = hashlib.sha256(str(text).encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


class _Code(str):
    """Text that is already safe inside a fence."""

    __slots__ = ()


def _fenced(text: str) -> _Code:
    text = printable(text)
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return _Code(f"{fence}\n{text}\n{fence}")


def _html(value: object) -> object:
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _markdown(value: object) -> object:
    """Escape what Markdown or the HTML inside it would act on, and keep a cell on one line."""
    if not isinstance(value, str) or isinstance(value, _Code):
        return value
    text = re.sub(r"([\\`*_\[\]|~#])", r"\\\1", " ".join(printable(value).split()))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
