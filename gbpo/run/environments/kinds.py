"""The environments that a recipe can name, and how each is created."""

import functools
import importlib
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from ...shared.nearest import nearest
from ...shared.packages import install_command
from ..recipe.arguments import VERIFIERS, RunArguments
from ..rewards_package import rewards_module
from . import verifiers

BUILTIN = {"code_word": "CodeWord"}  # name and module in this package → class

# kind, which is also a module of this package → what creates it there, the package that it needs, how to install that
_KINDS = {
    "reasoning_gym": ("ReasoningGym", "reasoning_gym", "pip install reasoning-gym"),
    "openenv": ("connect", "openenv", install_command("openenv")),
}

Make = Callable[[], Any]


def environments(run: RunArguments) -> dict[str | None, Make]:
    """What creates each environment of a recipe, by the name in the column `environment`.

    Args:
        run: The fields `environment` and `environment_kwargs` of the recipe.

    Returns:
        Empty without an environment. The name is None if all rows have the same environment.

    Raises:
        ValueError: An environment is unknown, its package is missing, or its options do not fit.
    """
    named, options = run.environment, run.environment_kwargs
    if not named:
        return {}
    own = [spec for spec in ([named] if isinstance(named, str) else named.values()) if _has_rows(spec)]
    if own and named != run.dataset_name:
        raise ValueError(
            f"environment={named!r}: {own[0]} has rows of its own, and dataset_name={run.dataset_name!r} has other "
            f"rows, which it cannot score. Write environment: {own[0]} alone, and remove dataset_name."
        )
    if isinstance(named, str):
        return {None: _make("environment", named, options)}
    unknown = [name for name in options if name not in named]
    if unknown:
        raise ValueError(
            f"environment_kwargs names {unknown[0]!r}, but environment has {', '.join(named)}. Write the options of "
            "each environment under its name."
        )
    return {name: _make(f"environment {name!r}", spec, options.get(name) or {}) for name, spec in named.items()}


def _has_rows(spec: Any) -> bool:
    return isinstance(spec, str) and spec.startswith(VERIFIERS)


def _make(where: str, spec: Any, options: Any) -> Make:
    if not isinstance(spec, str) or not isinstance(options, dict):
        raise ValueError(
            f"{where}={spec!r} with the options {options!r}: write text for the environment, for example "
            "my_module.make, and a mapping for its options."
        )
    kind, colon, name = spec.partition(":")
    if not colon:
        if "." not in spec:
            raise ValueError(f"{where}={spec!r} is not an environment. {_FORMS}")
        make = rewards_module("shared.dotted_path").import_dotted(spec, f"{where}:")
        return functools.partial(make, **options)
    if kind == "builtin":
        if name not in BUILTIN:
            raise ValueError(f"{where}={spec!r} is not a builtin environment. Write one of {', '.join(BUILTIN)}.")
        return functools.partial(getattr(importlib.import_module(f".{name}", __package__), BUILTIN[name]), **options)
    if kind == "verifiers":
        return verifiers.connect(spec, options)
    if kind not in _KINDS:
        near = nearest(kind, [*_KINDS, "builtin", "verifiers"])
        raise ValueError(f"{where}={spec!r}: did you mean {near}:{name}? {_FORMS}")
    maker, package, install = _KINDS[kind]
    if find_spec(package) is None:
        raise ValueError(f"{where}={spec!r} needs the package {package}, which is not installed: {install}.")
    make = getattr(importlib.import_module(f".{kind}", __package__), maker)
    return functools.partial(make, name, **options)


_FORMS = (
    "Write the dotted path of a class or function, such as my_module.make, or builtin:code_word, "
    "reasoning_gym:TASK, openenv:URL or verifiers:NAME."
)
