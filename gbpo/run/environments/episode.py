"""`Episode`: one environment of the user, with a time limit and with failures that do not end the run.

TRL creates one instance per completion, calls `reset(**row)` before each generation, and gives the model the other
public methods as tools. TRL makes an exception of a tool the text of the tool's answer.
"""

import contextlib
import functools
import inspect
import math
import sys
from collections.abc import Callable, Mapping
from typing import Any

from ..tools.limits import MAX_ERROR, ToolError, guarded, within

NOT_TOOLS = ("reset", "get_reward", "close")
_CLOSING = 10.0  # seconds that `close` may take


def tool_methods(environment: Any) -> dict[str, Callable[..., Any]]:
    """The methods of an environment that the model can call, by their names."""
    members = inspect.getmembers(type(environment), predicate=inspect.isfunction)
    return {name: function for name, function in members if name not in NOT_TOOLS and not name.startswith("_")}


def reads_completion(environment: Any) -> bool:
    """Whether `get_reward` has the argument `completion`, and so scores an episode without the calls of methods."""
    get_reward = getattr(environment, "get_reward", None)
    return get_reward is not None and "completion" in inspect.signature(get_reward).parameters


class Episode:
    """An environment as TRL's trainer uses it. `episodes_of` makes a subclass with the tools of the environment.

    An episode is broken if `reset` raises, if a method takes too long, if the connection to a server is lost, or if
    `get_reward` raises or returns no finite number. A broken episode has no reward, and its next `reset` begins with a
    new environment. All other exceptions of tools are answers to the model, which may have called them wrongly.
    """

    _name: str
    _class: type
    _make: Callable[[], Any]
    _seconds: float
    _has_reward: bool

    def __init__(self):
        self._environment: Any = None
        self._failure: str | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_environment":
            raise AttributeError(name)
        return getattr(self._environment, name)  # for rewards that read the state of the environment

    def reset(self, **row: Any) -> Any:
        """Begin a new episode with a row of the data set, and return the text that completes the prompt."""
        try:
            if self._failure is not None:
                close(self._environment)
                self._environment = None
            if self._environment is None:
                self._environment = within(self._seconds, type(self)._make)
            self._failure = None
            return within(self._seconds, lambda: self._environment.reset(**row))
        except Exception as error:  # an environment may raise any error
            self._failure = described("reset", error)
            return None

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        if self._failure is not None:
            raise RuntimeError(f"The environment does not answer any more: {self._failure}")
        act = getattr(self._environment, method)
        try:
            return guarded(lambda: act(*args, **kwargs), self._seconds)()
        except ToolError as error:
            if isinstance(error.__context__, (TimeoutError, ConnectionError)):
                self._failure = f"{method}: {error}"
            raise

    def _reward(self, completion: Any = ()) -> float | None:
        """The reward of the episode, or None if it is broken or if the environment cannot tell."""
        if self._failure is not None:
            return None
        try:
            known = {"completion": completion} if reads_completion(self._environment) else {}
            reward = within(self._seconds, lambda: self._environment.get_reward(**known))
            if reward is None:
                return None
            if not math.isfinite(reward):
                raise ValueError(f"{reward} is not finite")
            return float(reward)
        except Exception as error:  # as in `reset`
            self._failure = described("get_reward", error)
            return None


def episodes_of(name: str, make: Callable[[], Any], example: Any, seconds: float) -> type[Episode]:
    """The class whose instances are the episodes of one environment.

    Args:
        name: Name of the environment in the recipe, and of its reward.
        make: Creates an environment.
        example: An environment that `make` has created.
        seconds: Time limit of each call.
    """
    tools = {method: _guarded(method, function) for method, function in tool_methods(example).items()}
    own = {"_name": name, "_class": type(example), "_make": staticmethod(make), "_seconds": seconds}
    own["_has_reward"] = hasattr(example, "get_reward")
    return type(type(example).__name__, (Episode,), {**tools, **own})


def _guarded(method: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A method with the same signature and description, which calls the environment of the episode."""

    @functools.wraps(function)
    def call(self: Episode, *args: Any, **kwargs: Any) -> Any:
        return self._call(method, *args, **kwargs)

    return call


def close(environment: Any) -> None:
    """Call the environment's method `close`, if it has one. A failure changes nothing any more."""
    if hasattr(environment, "close"):
        with contextlib.suppress(Exception):
            within(_CLOSING, environment.close)


def described(method: str, error: Exception) -> str:
    """One line about a method that failed."""
    text = " ".join(f"{type(error).__name__} {error}".split())[:MAX_ERROR]
    return f"{method} raised {text}"


def own_reward(episode: Episode, completion: Any) -> float | None:
    """The reward of an episode by its environment. None if the episode is broken or the environment cannot tell."""
    return episode._reward(completion)


def gives_reward(kind: type[Episode]) -> bool:
    """Whether an environment rewards its own episodes."""
    return kind._has_reward


def failure(episode: Episode) -> str | None:
    """Why an episode is broken. None if it is not."""
    return episode._failure


class EnvironmentReward:
    """The rewards that an environment gives its own episodes. Episodes of other environments have no such reward.

    Args:
        name: Name of the environment.

    Returns:
        Per completion: the reward, or None (`broken`, or the environment returned None).

    Raises:
        RuntimeError: All episodes of a batch are broken.
    """

    def __init__(self, name: str):
        self.__name__ = name

    def __call__(
        self,
        completions: list[Any],
        *,
        environments: list[Episode],
        log_extra: Callable[[str, list[str]], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **kwargs: Any,
    ) -> list[float | None]:
        """Ask the environments of a batch, as described in the class."""
        own = [episode if episode._name == self.__name__ else None for episode in environments]
        rewards = [
            None if episode is None else episode._reward(completion)
            for episode, completion in zip(own, completions, strict=True)
        ]
        failures = [None if episode is None else episode._failure for episode in own]
        if log_extra is not None:
            log_extra(f"{self.__name__}/status", [self._status(e, f) for e, f in zip(own, failures, strict=True)])
        if log_metric is not None:
            log_metric(f"rewards/{self.__name__}/broken", sum(map(bool, failures)) / len(own))
        if all(episode._failure is not None for episode in environments):
            raise RuntimeError(
                f"All {len(own)} episodes of this batch are broken, the first because {environments[0]._failure}. "
                "Training stops here, because nothing could be learnt. Repair the environment or start its server, and "
                "resume the run."
            )
        return rewards

    def _status(self, episode: Episode | None, failure: str | None) -> str:
        if episode is None:
            return ""
        return "ok" if failure is None else f"broken: {failure}"


def defined_by(kind: type[Episode]) -> list[Any]:
    """The class of an environment with its base classes, and the function or class that creates it."""
    classes = [one for one in kind._class.__mro__ if hasattr(sys.modules.get(one.__module__), "__file__")]
    return [*classes, getattr(kind._make, "func", kind._make)]


def rewards_of(episodes: Mapping[str | None, type[Episode]]) -> list[EnvironmentReward]:
    """The rewards of the environments that have one."""
    return [EnvironmentReward(one._name) for one in episodes.values() if gives_reward(one)]
