"""Renders a page: one HTML file without external resources, with a template, a style and scripts of its own."""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from . import formatting
from .palette import DASHES, PALETTE

_HERE = Path(__file__).parent
CHARTS = _HERE / "charts.js"


def environment(templates: Path) -> Environment:
    """The templates of a folder, which can extend `base.html`. Every text is escaped, and its control characters too.

    Args:
        templates: Folder with the templates of a page.
    """
    found = Environment(
        loader=FileSystemLoader([templates, _HERE]),
        autoescape=select_autoescape(["html"]),
        finalize=lambda value: (
            formatting.visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
        ),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    formats = (formatting.number, formatting.amount, formatting.duration, formatting.breakable, embedded)
    found.filters |= {one.__name__: one for one in formats}
    found.globals |= {"palette": PALETTE, "dashes": DASHES}
    return found


def assets(style: Path, *scripts: Path) -> dict[str, Any]:
    """What `base.html` needs: the styles, the scripts, and the hash without which a browser runs no script.

    Args:
        style: The style of the page. It comes after the style of all pages.
        scripts: The scripts of the page, in their order.
    """
    script = "\n".join(path.read_text() for path in scripts)
    return {
        "css": Markup((_HERE / "base.css").read_text() + style.read_text()),
        "script": Markup(script),
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }


def embedded(value: Any) -> Markup:
    """A value as JSON that a script element can hold."""
    return htmlsafe_json_dumps(value, allow_nan=False, separators=(",", ":"))


def thinned(values: Sequence[Any], count: int) -> list[Any]:
    """At most `count` of the values, evenly spaced. The last is one of them, and with two or more also the first.

    >>> thinned("abcdefgh", 3)
    ['a', 'd', 'h']
    """
    if len(values) <= count:
        return list(values)
    last = len(values) - 1
    return [values[last - round(i * last / max(1, count - 1))] for i in reversed(range(count))]
