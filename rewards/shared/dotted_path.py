"""Import the user's own functions and classes by their dotted paths."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any


def import_dotted(path: str, what: str) -> Callable[..., Any]:
    """Import something that can be called.

    Args:
        path: `package.module.attribute`.
        what: What the path stands for. The error begins with it.

    Raises:
        ValueError: The module cannot be imported, or the attribute does not exist or cannot be called.
    """
    module_name, _, attribute = path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a user's module may raise any error
        raise ValueError(
            f"{what} {path!r}: importing {module_name!r} failed with {type(error).__name__}: {error}. Write "
            "'package.module.attribute' with the package on PYTHONPATH."
        ) from error
    if not hasattr(module, attribute):
        raise ValueError(
            f"{what} {path!r}: the module {module_name!r} has no attribute {attribute!r}. Correct the name."
        )
    target = getattr(module, attribute)
    if not callable(target):
        raise ValueError(f"{what} {path!r}: {attribute!r} is of type {type(target).__name__}, which cannot be called.")
    return target
