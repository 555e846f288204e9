"""Reads recipes for all commands."""

import re
from pathlib import Path
from typing import Any

import yaml

from .nearest import nearest
from .packages import shipped_recipes


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
        hint = " YAML allows no tabs: indent with spaces." if "'\\t'" in str(error) else _hidden_by_hash(path)
        raise ValueError(f"Recipe {path} is not YAML: {' '.join(str(error).split())}{hint}") from None
    if not isinstance(recipe, dict):
        raise ValueError(f"Recipe {path} holds no fields. Write one `field: value` per line.")
    return recipe


def quote_hashes(text: str) -> str:
    """Put the extractor `after ####` in quotes. YAML would take its marker for a comment.

    >>> quote_hashes("dataset_extract: {solution: after ####}")
    'dataset_extract: {solution: "after ####"}'
    """
    return re.sub(r"(?<=: )after (#+)(?=[ \t]*(?:[,}]|$))", r'"after \1"', text, flags=re.MULTILINE)


def _hidden_by_hash(path: Path) -> str:
    """A hint if a `#` inside brackets makes the rest of a line a comment, so that the closing bracket is missing."""
    text = path.read_text(errors="replace")
    found = re.search(r"^[^#\n]*[{\[][^#\n]* (#.*[}\]]).*$", text, re.MULTILINE)
    return f" YAML takes {found[1]!r} for a comment: put a value with # in quotes." if found else ""


class _Loader(yaml.SafeLoader):
    """Raises an error for a key that is given twice. PyYAML would use the last value."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"{key.value!r} is given twice, but only the last value would be used; remove one",
                    problem_mark=key.start_mark,
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)
