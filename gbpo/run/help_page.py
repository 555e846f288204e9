"""The help of `gbpo train`: the fields of a run and of GBPO, one line each. `--help-all` lists the inherited fields."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import MISSING, fields

from trl import GRPOConfig, ModelConfig

from ..trainer.config import BaseConfig, GBPOConfig
from .recipe.arguments import RunArguments
from .tables import options

_WIDEST = 118
_USAGE = """usage: gbpo train RECIPE [--field value …] [--processes N]

RECIPE is a YAML file, or a name that 'gbpo recipes' lists. Every field can also
be in the recipe. --processes N starts N processes on this machine."""
_MORE = """recipes/README.md and gbpo/README.md explain these. 'gbpo train --help-all' adds
the fields of TRL and transformers, such as learning_rate and use_peft."""

# inherited fields with another meaning in a recipe
_OWN_MEANING = {
    "resume_from_checkpoint": "auto (the last checkpoint, if any), true or a path restores the whole run",
}


def asks_for_help(argv: Sequence[str]) -> bool:
    """Whether the arguments ask for help. A value of a field is not such a request."""
    return any(word in ("-h", "--help", "--help-all") for word in argv)


def help_page(argv: Sequence[str]) -> str:
    """The text for `--help` or, if it is among the arguments, for `--help-all`."""
    parts = [_USAGE, _section("Run", RunArguments), _section("GBPO", GBPOConfig, BaseConfig)]
    parts.append(_section("Both algorithms", BaseConfig, GRPOConfig))
    if "--help-all" in argv:
        parts += [_inherited("TRL's GRPOConfig", GRPOConfig), _inherited("TRL's ModelConfig", ModelConfig)]
    return "\n\n".join([*parts, _MORE])


def _section(title: str, config: type, inherited: type | None = None) -> str:
    _, rows = options(config, inherited)
    lines = [_line(name.strip("`"), default.strip("`"), meaning) for name, _, default, meaning in rows]
    return "\n".join([f"{title}:", *lines])


def _line(name: str, default: str, meaning: str) -> str:
    """Name, default and first sentence, cut at the width of the terminal."""
    sentence = re.split(r"(?<=[a-z)}`])[.;] ", " ".join(meaning.split()), maxsplit=1)[0].replace("`", "").rstrip(".")
    text = f"  --{name:<27} {f'({default})':<9} {sentence}"
    width = min(_WIDEST, shutil.get_terminal_size((_WIDEST, 50)).columns)
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"


def _inherited(title: str, config: type) -> str:
    """The fields of a class of TRL, with the help texts of its own dataclass fields."""
    lines = [
        _line(
            one.name,
            "…" if one.default is MISSING else str(one.default),
            _OWN_MEANING.get(one.name)
            or one.metadata.get("help")
            or "see the documentation of transformers' TrainingArguments",
        )
        for one in fields(config)
        if one.init
    ]
    return "\n".join([f"{title}:", *lines])
