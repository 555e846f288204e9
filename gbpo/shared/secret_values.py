"""Hides tokens, keys and passwords, before a run writes or prints its command and its settings."""

import re
from collections.abc import Sequence
from typing import Any

HIDDEN = "HIDDEN"

_NAME = r"(?:[\w-]*[_-])?(?:token|api[_-]key|password|secret)"
_FLAG = re.compile(rf"--{_NAME}")
_FLAG_WITH_VALUE = re.compile(rf"({_FLAG.pattern})=.*", re.DOTALL)
_INSIDE = re.compile(rf"""\b({_NAME}["']?\s*:\s*)("[^"]*"|'[^']*'|[^\s,}}]+)""")  # in a mapping as JSON or YAML


def without_secrets(words: Sequence[str]) -> list[str]:
    """The words of a command with hidden secrets.

    >>> without_secrets(["--hub_token", "hf_1", "--reward_kwargs", "{mine: {api_key: a}}"])
    ['--hub_token', 'HIDDEN', '--reward_kwargs', '{mine: {api_key: HIDDEN}}']
    """
    shown: list[str] = []
    for before, word in zip(["", *words], words, strict=False):
        if _FLAG.fullmatch(before):
            shown.append(HIDDEN)
        elif "_kwargs" in before or "_kwargs=" in word:
            shown.append(_INSIDE.sub(rf"\1{HIDDEN}", word))
        else:
            shown.append(_FLAG_WITH_VALUE.sub(rf"\1={HIDDEN}", word))
    return shown


def options_without_secrets(value: Any) -> Any:
    """The options of a reward, an environment or a model, with hidden secrets.

    >>> options_without_secrets({"mine": {"api_key": "a", "size": 2}})
    {'mine': {'api_key': 'HIDDEN', 'size': 2}}
    """
    if isinstance(value, list):
        return [options_without_secrets(some) for some in value]
    if not isinstance(value, dict):
        return value
    return {
        name: HIDDEN if isinstance(some, str) and re.fullmatch(_NAME, str(name)) else options_without_secrets(some)
        for name, some in value.items()
    }
