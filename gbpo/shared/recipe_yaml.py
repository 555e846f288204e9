"""Reads recipes for all commands."""

import re
from pathlib import Path
from typing import Any

import yaml

from .nearest import nearest
from .packages import shipped_recipes

_NO_TEXT = "the name of a field is not a text"
_EXTRACTOR = re.compile(r"((?:^|[{,])[ \t]*[\w.]+: )after (#+)(?=[ \t]*(?:[,}]|$))", re.MULTILINE)
_CUT_PROMPT = re.compile(r"^(system_prompt|prompt_template):[ \t]+[^'\"|>\s#][^\n]*?[ \t](#[^\n]*)$", re.MULTILINE)


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
        text = path.read_text()
        recipe = yaml.load(quote_hashes(text), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"Recipe {path} is not YAML: {_problem(error)}.{_hint(str(error), path)}") from None
    if not isinstance(recipe, dict):
        raise ValueError(f"Recipe {path} holds no fields. Write one `field: value` per line.")
    if cut := _CUT_PROMPT.search(text):
        raise ValueError(f"Recipe {path}: YAML takes {cut[2]!r} in {cut[1]} for a comment. Put the text in quotes.")
    return recipe


def load_yaml(text: str) -> Any:
    """Read one value as recipes do.

    Raises:
        yaml.YAMLError: The text is not YAML.

    >>> load_yaml("{size: 1_000, rate: 1.0e-6, name: 0012}")
    {'size': 1000, 'rate': 1e-06, 'name': '0012'}
    """
    return yaml.load(quote_hashes(text), _Loader)


def quote_hashes(text: str) -> str:
    """Put the extractor `after ####` in quotes. YAML would take its marker for a comment.

    >>> quote_hashes("dataset_extract: {solution: after ####}")
    'dataset_extract: {solution: "after ####"}'
    """
    return _EXTRACTOR.sub(r'\1"after \2"', text)


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
    """Leaves names that look like numbers or dates as text, and raises an error for a key that is given twice.

    It reads 1e-6 as a number, which PyYAML reads as text.

    PyYAML reads `0012` as 10, `12:30` as 750, `2024_01` as 202401 and a date as an object, and uses the last of two
    values.
    """

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


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag.rpartition(":")[2] not in ("int", "float", "timestamp")]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_WHOLE = r"(?:0|[1-9]\d{0,2}(?:_\d{3})+|[1-9]\d*)"
for _tag, _pattern in (
    ("int", rf"[-+]?{_WHOLE}"),
    ("float", rf"[-+]?(?:\.\d+|{_WHOLE}\.\d*)(?:[eE][-+]\d+)?|[-+]?{_WHOLE}[eE][-+]\d+"),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})$"), [*"-+.0123456789"])
