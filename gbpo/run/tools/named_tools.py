"""The tools that a recipe names."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers.utils import get_json_schema

from ...shared.recipe_yaml import nearest
from ..recipe.arguments import RunArguments
from ..rewards_package import rewards_module
from .calculator import calculator
from .limits import guarded
from .python_session import PythonSession, session_class

PREFIX = "builtin:"
PYTHON = f"{PREFIX}python"
_BUILTIN: dict[str, Callable[..., Any]] = {PYTHON: PythonSession().python, f"{PREFIX}calculator": calculator}


@dataclass(frozen=True)
class Tools:
    """The tools of a run.

    Args:
        functions: Tools that all completions share, with their limits.
        session: Class whose methods are tools. Each completion gets its own instance. None: there is no such tool.
    """

    functions: tuple[Callable[..., Any], ...] = ()
    session: type | None = None


def load_tools(run: RunArguments) -> Tools:
    """Import the tools of a recipe.

    Raises:
        ValueError: As for `found_tools`, or the sandbox of `builtin:python` does not work here.
    """
    tools = found_tools(run)
    return Tools(
        tuple(guarded(tool, run.tool_timeout) for name, tool in tools.items() if name != PYTHON),
        session_class(run.tool_timeout) if PYTHON in tools else None,
    )


def tool_methods(session: Any) -> dict[str, Callable[..., Any]]:
    """The methods of a session that the model can call, by their names, as TRL finds them."""
    names = [name for name, _ in inspect.getmembers(type(session), inspect.isfunction)]
    return {name: getattr(session, name) for name in names if name != "reset" and not name.startswith("_")}


def schemas(run: RunArguments) -> tuple[dict[str, Any], ...]:
    """The descriptions of the tools, which the chat template may write into the prompt."""
    return tuple(get_json_schema(tool) for tool in found_tools(run).values())


def found_tools(run: RunArguments) -> dict[str, Callable[..., Any]]:
    """The functions that a recipe lists as `tools`, by their names in the recipe.

    Raises:
        ValueError: A tool is unknown, is no function, has no description, or has the name of another one.
    """
    found: dict[str, Callable[..., Any]] = {}
    for name in run.tools or []:
        tool = _found(name)
        try:
            get_json_schema(tool)
        except Exception as error:  # transformers raises several types of errors
            raise ValueError(
                f"tools: {name!r} cannot be described to the model: {' '.join(str(error).split())} Give every argument "
                "a type hint, and write a docstring with a line for each argument under 'Args:'."
            ) from None
        twin = next((other for other, one in found.items() if one.__name__ == tool.__name__), None)
        if twin is not None:
            raise ValueError(
                f"tools: {twin!r} and {name!r} are both called {tool.__name__!r}, so the model could call only one of "
                "them. Rename or remove one."
            )
        found[name] = tool
    return found


def _found(name: str) -> Callable[..., Any]:
    if name in _BUILTIN:
        return _BUILTIN[name]
    if name.startswith(PREFIX) or "." not in name:
        raise ValueError(
            f"tools: {name!r} is not a tool; the nearest builtin one is {nearest(name, _BUILTIN)!r}. Write one of "
            f"{', '.join(_BUILTIN)}, or the dotted path of your own function, such as my_module.search."
        )
    tool = rewards_module("shared.dotted_path").import_dotted(name, "tools:")
    if not inspect.isroutine(tool):
        raise ValueError(
            f"tools: {name!r} is of type {type(tool).__name__}, but a tool is a function. Write a function that calls "
            "it, or use environment_factory in Python for state per completion."
        )
    return tool
