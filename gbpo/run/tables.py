"""`python -m gbpo.run.tables`: writes the tables of options and metrics into the pages of the checkout.

The options come from the docstrings of their configurations, and the metrics from `gbpo/trainer/metric_definitions.py`.
"""

import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import MISSING, Field, fields
from inspect import getdoc
from pathlib import Path
from typing import Any, get_type_hints

from trl import GRPOConfig

from ..trainer.config import CHOICES, HONOURED, REFUSED, BaseConfig, GBPOConfig
from ..trainer.metric_definitions import METRICS
from .recipe.arguments import RunArguments

PAGES = ("gbpo/README.md", "recipes/README.md")
TYPES = {"str": "text", "int": "integer", "float": "number", "bool": "boolean", "list": "list", "dict": "mapping"}


def updated(page: str) -> str:
    """The text of a page whose tables are up to date.

    A table stands between the lines `<!-- table: NAME -->` and `<!-- end of table -->`.

    Raises:
        ValueError: The page has no table, or a table with an unknown name.
    """
    table = re.compile(r"(<!-- table: ([\w ]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
    if not table.search(page):
        raise ValueError("The page has no table. Write the lines <!-- table: NAME --> and <!-- end of table -->.")
    return table.sub(lambda found: found[1] + _table(found[2]) + found[3], page)


def _table(name: str) -> str:
    if name not in TABLES:
        raise ValueError(f"The table {name!r} is unknown. Write one of {', '.join(TABLES)}.")
    heads, rows = TABLES[name]()
    lines = [heads, ["---"] * len(heads), *([_cell(text) for text in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(text: str) -> str:
    """Markdown for a cell: a bar would end it, and asterisks outside code would make text bold."""
    pieces = re.split(r"(`[^`]*`)", text)
    pieces[::2] = [piece.replace("*", r"\*") for piece in pieces[::2]]
    return "".join(pieces).replace("|", r"\|")


Rows = tuple[list[str], Iterable[list[str]]]


def options(config: type, inherited: type | None = None) -> Rows:
    """The fields that a configuration declares itself."""
    meanings, types = _arguments(config), get_type_hints(config)
    others = {one.name for one in fields(inherited)} if inherited is not None else set()
    own = [one for one in fields(config) if one.name not in others]
    rows = [[f"`{one.name}`", _type(types[one.name]), _default(one), meanings[one.name]] for one in own]
    return ["field", "type", "default", "meaning"], rows


def _arguments(config: type) -> dict[str, str]:
    """The section "Args" of a docstring: names and meanings."""
    section = re.search(r"^Args:\n(.*?)(?:\n\n|\Z)", getdoc(config) or "", re.MULTILINE | re.DOTALL)
    entries = re.findall(r"^    (\w+): (.*?)(?=^    \w+: |\Z)", section[1] if section else "", re.MULTILINE | re.DOTALL)
    return {name: re.sub(r'`"([^"]+)"`', r"`\1`", " ".join(text.split())) for name, text in entries}


def _type(annotation: Any) -> str:
    names = re.findall(r"\b(?:str|int|float|bool|list|dict)\b", re.sub(r"\[.*?\]", "", str(annotation)))
    return " or ".join(TYPES[name] for name in names)


def _default(option: Field) -> str:
    value: Any = option.default
    if option.default_factory is not MISSING:
        value = option.default_factory()
    if value is None or value in ({}, ""):
        return "none"
    if isinstance(value, list):
        value = ", ".join(value)
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _loss_options() -> Rows:
    rows = [[", ".join(map(_with_choices, names)), f"supported: {text}"] for names, text in HONOURED.items()]
    rows += [[f"`{name}`", f"refused: {reason}"] for name, reason in REFUSED.items()]
    return ["option of `GRPOConfig`", "in GBPO"], rows


def _with_choices(name: str) -> str:
    """A field, and its values if `GBPOConfig` allows only some."""
    return f"`{name}`" + (f" ({', '.join(f'`{value}`' for value in CHOICES[name])})" if name in CHOICES else "")


def _metrics() -> Rows:
    rows = (
        [f"`{name}`", "both" if one.grpo else "GBPO", one.condition, one.definition] for name, one in METRICS.items()
    )
    return ["metric", "algorithms", "only with", "definition"], rows


TABLES: dict[str, Callable[[], Rows]] = {
    "options of GBPO": lambda: options(GBPOConfig, BaseConfig),
    "options of both algorithms": lambda: options(BaseConfig, GRPOConfig),
    "options of the loss of GRPO": _loss_options,
    "fields of a run": lambda: options(RunArguments),
    "metrics": _metrics,
}


def main() -> int:
    """Update the pages, and print the names of those that changed."""
    root = Path(__file__).parents[2]
    for name in PAGES:
        text = (root / name).read_text()
        if (new := updated(text)) != text:
            (root / name).write_text(new)
            print(f"{name}: the tables were updated")
    return 0


if __name__ == "__main__":
    sys.exit(main())
