"""Import the user's own functions and classes by their dotted paths."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_OWN = __name__.partition(".")[0]


def import_dotted(path: str, what: str) -> Callable[..., Any]:
    """Import something that can be called.

    Args:
        path: `package.module.attribute`.
        what: What the path stands for. The error begins with it.

    Raises:
        ValueError: The module cannot be imported, or the attribute does not exist or cannot be called.
    """
    if file := re.match(r"(.*)\.py(?:$|:)(.*)", path):
        script, name = Path(file[1]), file[2] or "NAME"
        where = "" if script.parent == Path() else f", and run the command in {script.parent} or add it to PYTHONPATH"
        which = "" if file[2] else " Replace NAME by a name of this file."
        raise ValueError(f"{what} {path!r} is a file. Write '{script.name}.{name}'{where}.{which}")
    module_name, _, attribute = path.rpartition(".")
    top = module_name.partition(".")[0]
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a user's module may raise any error
        is_missing = isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == top
        fix = f"Run the command in the folder that holds {top!r}, or add this folder to PYTHONPATH."
        if top == _OWN:
            fix = f"gbpo has a package {top!r}: give your file or folder another name, such as my_{top}."
        raise ValueError(
            f"{what} {path!r}: importing {module_name!r} failed with {type(error).__name__}: {error}. "
            + (fix if is_missing else "Correct the module, or install what it imports.")
        ) from error
    if not hasattr(module, attribute):
        owner = "Python" if top in sys.stdlib_module_names else "gbpo" if top == _OWN else None
        raise ValueError(
            f"{what} {path!r}: the module {module_name!r} has no attribute {attribute!r}. "
            + (f"{owner} has a module of this name: give your file another name." if owner else "Correct the name.")
        )
    target = getattr(module, attribute)
    if not callable(target):
        raise ValueError(f"{what} {path!r}: {attribute!r} is of type {type(target).__name__}, which cannot be called.")
    return target
