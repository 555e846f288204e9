"""Reads recipes for all commands."""

import re
from pathlib import Path
from typing import Any

import yaml

from .nearest import nearest
from .packages import shipped_recipes

_NO_TEXT = "the name of a field is not a text"


def read_yaml(path: Path) -> dict[str, Any]:
    """Read the fields of a recipe.

    Args:
        path: The YAML file.

    Raises:
        ValueError: The file does not exist, is not YAML, or gives a field twice.
    """
    if path.is_dir():
        raise ValueError(f"Recipe {path} is a folder. Give the path of a YAML file.")
    if not path.is_file():
        shipped = [name.rpartition("/")[2] for name in shipped_recipes()]
        raise ValueError(
            f"Recipe {path} not found. Give the path of a YAML file, or the name of a shipped recipe. Did you mean "
            f"{nearest(path.stem, shipped)!r}?"
        )
    try:
        recipe = yaml.load(quote_hashes(path.read_text()), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"Recipe {path} is not YAML: {_problem(error)}.{_hint(str(error), path)}") from None
    if not isinstance(recipe, dict):
        raise ValueError(f"Recipe {path} holds no fields. Write one `field: value` per line.")
    return recipe


def quote_hashes(text: str) -> str:
    """Put the extractor `after ####` in quotes. YAML would take its marker for a comment.

    >>> quote_hashes("dataset_extract: {solution: after ####}")
    'dataset_extract: {solution: "after ####"}'
    """
    return re.sub(r"(?<=: )after (#+)(?=[ \t]*(?:[,}]|$))", r'"after \1"', text, flags=re.MULTILINE)


def _problem(error: Exception) -> str:
    """What is wrong, each part with its line."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return " ".join(str(error).split())
    parts = ((error.context, error.context_mark), (error.problem, error.problem_mark))
    return "; ".join(f"line {mark.line + 1}: {what}" if mark else what for what, mark in parts if what)


def _hint(error: str, path: Path) -> str:
    if r"'\t'" in error:
        return " YAML allows no tabs: indent with spaces."
    # A `#` inside brackets makes the rest of a line a comment, so that the closing bracket is missing.
    text = path.read_text(errors="replace")
    if found := re.search(r"^[^#\n]*[{\[][^#\n]* (#.*[}\]]).*$", text, re.MULTILINE):
        return f" YAML takes {found[1]!r} for a comment: put a value with # in quotes."
    if any(problem in error for problem in ("expected <block end>", "mapping values are not allowed", _NO_TEXT)):
        return " Put a text in quotes if it has a colon, or begins with a bracket or a quotation mark."
    return ""


class _Loader(yaml.SafeLoader):
    """Raises an error for a key that is given twice. PyYAML would use the last value."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem=_NO_TEXT, problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"{key.value!r} is given twice, but only the last value would be used; remove one",
                    problem_mark=key.start_mark,
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)
