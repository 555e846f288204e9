r"""Verifiable rewards with TRL's signature.

A reward is a picklable callable `(completions, *, <columns>, log_extra=None, log_metric=None, **kwargs)` that returns
one `float` or `None` per completion. `0.0` means a wrong completion. `None` means that the completion cannot be graded.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import math
import types
import typing
from collections.abc import Callable
from typing import Any

from .shared.dotted_path import import_dotted

# name -> module and class; imported by get_reward, so that `import rewards` is fast
_REGISTERED = {
    "boxed": "shape.format.Boxed",
    "code": "programs.reward.Code",
    "cosine": "shape.length.Cosine",
    "exact_match": "answers.exact_match.ExactMatch",
    "format": "shape.format.Format",
    "judge": "judges.judge.Judge",
    "length": "shape.length.Length",
    "majority_vote": "answers.majority_vote.MajorityVote",
    "math": "answers.math_answer.Math",
    "reasoning_gym": "answers.reasoning_gym.ReasoningGym",
    "repetition": "shape.repetition.Repetition",
    "reward_model": "judges.reward_model.RewardModel",
    "soft_overlong": "shape.length.SoftOverlong",
}

# type of an option -> what to write for it
_TYPES = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "a text",
    tuple: "a list",
    type(None): "null",
}


def reward_names() -> tuple[str, ...]:
    """The names of the registered rewards.

    >>> reward_names()[:4]
    ('boxed', 'code', 'cosine', 'exact_match')
    """
    return tuple(_REGISTERED)


def get_reward(name: str, **config: Any) -> Callable[..., Any]:
    """Build a reward by its registered name or by the dotted path of your own reward.

    Args:
        name: One of `reward_names()`, or `package.module.attribute`. A class is called with `config`. A function is
            returned unchanged or, if there is `config`, as a `functools.partial`.
        config: Options of the reward.

    Returns:
        A picklable callable with TRL's signature.

    Raises:
        ValueError: The name is unknown, nothing that can be called has this path, an option is unknown or has another
            type, or a required option of a class is missing.

    >>> get_reward("exact_match")(["57", " 58 "], solution=[57, 57])
    [1.0, 0.0]
    """
    if name in _REGISTERED:
        module, _, attribute = _REGISTERED[name].rpartition(".")
        target = getattr(importlib.import_module(f".{module}", __package__), attribute)
    elif "." in name:
        target = import_dotted(name, "Reward")
    else:
        nearest = difflib.get_close_matches(name.lower(), _REGISTERED, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"Unknown reward {name!r}; the nearest known one is {nearest!r}. Write one of {', '.join(_REGISTERED)}, "
            "or the dotted path of your own, such as 'my_package.my_module.my_reward'."
        )
    signature = inspect.signature(target)
    try:
        (signature.bind if inspect.isclass(target) else signature.bind_partial)(**config)
    except TypeError as error:
        variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        options = ", ".join(key for key, one in signature.parameters.items() if one.kind not in variadic) or "none"
        raise ValueError(f"Reward {name!r}: {error}. Its options: {options}.") from error
    if not inspect.isclass(target):
        return functools.partial(target, **config) if config else target
    try:
        reward = target(**config)
    except TypeError as error:
        raise ValueError(f"Reward {name!r} with the options {config}: {error}. Write values of other types.") from error
    except ValueError:
        raise
    except Exception as error:  # a user's class may raise any error
        raise ValueError(
            f"Reward {name!r} with the options {config} could not be made: {type(error).__name__}: {error}. Correct "
            "the class or its options."
        ) from error
    if name in _REGISTERED:
        _check_types(name, target, config)
    if not callable(reward):
        raise ValueError(f"Reward {name!r}: instances of the class cannot be called. Add a method `__call__`.")
    return reward


def _check_types(name: str, target: Any, config: dict[str, Any]) -> None:
    """Raise `ValueError` if the value of an option does not have the type that the class names.

    Python would take `"false"` for true, and other values would fail only when the reward is called.
    """
    hints = typing.get_type_hints(target.__init__)
    for option, value in config.items():
        if not _fits(value, hint := hints.get(option, Any)):
            raise ValueError(
                f"Reward {name!r}: {option}={value!r} has a type that the reward cannot use. Write {_in_words(hint)}."
            )


def _in_words(hint: Any) -> str:
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (typing.get_origin(hint) or hint,)
    return " or ".join(_TYPES.get(kind, kind.__name__) for kind in kinds)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value has a type. Whole numbers are floats too, but true and false are not numbers."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        return any(_fits(value, argument) for argument in arguments)
    if hint is Any or (origin is tuple and isinstance(value, list | tuple)):  # the classes check what is in it
        return True
    if isinstance(value, bool):
        return hint is bool
    if hint is float:
        return isinstance(value, int | float) and math.isfinite(value)
    return isinstance(value, origin or hint)
