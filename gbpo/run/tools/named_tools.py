"""The tools that a recipe names."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers.utils import get_json_schema

from ...shared.nearest import nearest
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
        ValueError: A tool is unknown, cannot be used, or has the name of another one.
    """
    found: dict[str, Callable[..., Any]] = {}
    for name in run.tools or []:
        tool = _found(name)
        if problem := why_unusable(tool):
            raise ValueError(f"tools: {name!r} {problem}")
        twin = next((other for other, one in found.items() if one.__name__ == tool.__name__), None)
        if twin is not None:
            raise ValueError(
                f"tools: {twin!r} and {name!r} are both called {tool.__name__!r}, so the model could call only one of "
                "them. Rename or remove one."
            )
        found[name] = tool
    return found


def why_unusable(tool: Callable[..., Any]) -> str | None:
    """What keeps a model from calling a function or a method, with the fix. None if nothing does."""
    try:
        get_json_schema(tool)
    except Exception as error:  # transformers raises several types of errors
        reason = " ".join(str(error).split()).rstrip(".")
        return (
            f"cannot be described to the model: {reason}. Give each argument a type hint, and write a docstring with a "
            "line for each argument under 'Args:'."
        )
    if inspect.isgeneratorfunction(tool) or inspect.isasyncgenfunction(tool):
        return "yields, so its answer would be the name of a generator. Return a text instead."
    for argument in inspect.signature(tool).parameters.values():
        if argument.kind in (argument.POSITIONAL_ONLY, argument.VAR_POSITIONAL):
            return (
                f"has the argument {str(argument).split(':')[0]!r} without a name, but a model names each argument, so "
                "every call would fail. Write arguments without * and /."
            )
    return None


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
            "it; for state per completion write environment: instead of tools:."
        )
    return tool
