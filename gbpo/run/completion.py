"""The script with which a shell completes commands, recipes and fields: `gbpo completion bash`.

The script starts no Python when a user presses Tab.
"""

import argparse
from collections.abc import Mapping

import shtab

from ..shared.packages import shipped_recipes
from .recipe.arguments import ALGORITHMS
from .rewards_package import rewards_module

SHELLS = ("bash", "zsh")
_TAKE_FIELDS = ("train", "compare", "doctor")  # commands that take the fields of a recipe
_WORDS = {"recipes": (("list", "show", "copy"), tuple(shipped_recipes())), "completion": (SHELLS,)}


def script(shell: str, commands: Mapping[str, tuple[str, argparse.ArgumentParser | None]]) -> str:
    """The script for a shell.

    Args:
        shell: One of `SHELLS`.
        commands: Each command with its meaning, and its own parser if it has one.
    """
    gbpo = argparse.ArgumentParser(prog="gbpo")
    added = gbpo.add_subparsers()
    for name, (meaning, own) in commands.items():
        parents = [*([_fields()] if name in _TAKE_FIELDS else []), *([own] if own else [])]
        parser = added.add_parser(name, help=meaning, parents=parents, add_help=False, conflict_handler="resolve")
        if name == "train":
            parser.add_argument("--processes", type=int, help="start N processes")
            parser.add_argument("--help-all", action="store_true", help="show all fields")
        for place, words in enumerate(_WORDS.get(name, ())):
            parser.add_argument(f"word_{place}", choices=words)
        for action in parser._actions:
            if action.dest == "recipe":
                action.complete = _recipe_or_file(control=name == "control")  # type: ignore[attr-defined]
    return shtab.complete(gbpo, shell)


def _fields() -> argparse.ArgumentParser:
    """The recipe and its fields, with the values that a field can have. Each field has one spelling."""
    from ..trainer.config import CHOICES
    from .recipe.parsing import make_parser  # these load TRL

    values = {**CHOICES, "algorithm": ALGORITHMS, "reward_funcs": rewards_module().reward_names()}
    parser = make_parser()
    for action in parser._actions:
        action.option_strings = [flag for flag in action.option_strings if "-" not in flag.lstrip("-")]
        is_boolean = getattr(action.type, "__name__", "") == "string_to_bool"
        action.choices = ("true", "false") if is_boolean else values.get(action.dest, action.choices)
    return parser


def _recipe_or_file(*, control: bool) -> dict[str, object]:
    """How shtab completes a recipe. The word "file" in the function's name makes bash add a slash to folders."""
    names = " ".join(name for name in shipped_recipes() if name.startswith("control/") == control)
    function = f"_gbpo_{'control' if control else 'training'}_recipe_or_file"
    bash = f'{function}() {{ compgen -W "{names}" -- "$1"; compgen -f -- "$1"; }}'
    zsh = f"{function}() {{ compadd -- {names}; _files; }}"
    return {"bash": function, "zsh": function, "preamble": {"bash": bash, "zsh": zsh}}
