"""Parse a recipe and the command line into a checked plan of a control run."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.utils import LinearSchedule

from ..shared.command_line import OneLineErrorParser, seed
from ..shared.nearest import nearest
from ..shared.packages import find_recipe
from ..shared.recipe_yaml import read_yaml
from .bpo import BPO

ALGORITHMS: dict[str, type[PPO]] = {"bpo": BPO, "ppo": PPO}

_RUN_KEYS = ("env", "env_kwargs", "steps", "seeds", "eval_episodes", "evaluations")
_SCHEDULES = ("learning_rate", "clip_range", "clip_range_high", "clip_range_vf")
# parameters that the run sets itself, or that YAML cannot express
_NOT_SETTINGS = {"self", "policy", "env", "seed", "verbose", "stats_window_size", "tensorboard_log", "ppo_options"}
_NOT_SETTINGS |= {"rollout_buffer_class", "rollout_buffer_kwargs", "_init_setup_model"}
# least and greatest values; Stable-Baselines3 does not check them, or its message does not name the setting
_LIMITS = {
    **dict.fromkeys(("n_envs", "n_steps", "batch_size", "n_epochs"), (1, math.inf)),
    **dict.fromkeys(("gamma", "gae_lambda"), (0, 1)),
    **dict.fromkeys(("learning_rate", "clip_range", "target_kl", "vf_coef", "max_grad_norm"), (0, math.inf)),
}


@dataclass(frozen=True)
class Plan:
    """All settings that affect the result of a run.

    Args:
        env: Gymnasium id.
        algorithm: `"bpo"` or `"ppo"`.
        steps: Environment steps of each seed, summed over all copies of the environment.
        settings: Parameters of the algorithm as written in YAML, and `n_envs` and `normalize`.
        env_kwargs: Arguments of the environment.
        eval_episodes: Episodes of each evaluation.
        evaluations: Number of evaluations of each seed, evenly spread over training. Each writes a checkpoint. One more
            evaluation runs before training.

    Raises:
        ValueError: A field has the wrong type or an invalid value, or a setting is unknown.
    """

    env: str
    algorithm: str
    steps: int
    settings: dict[str, Any] = field(default_factory=dict)
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    eval_episodes: int = 10
    evaluations: int = 20

    def __post_init__(self) -> None:
        for name in ("steps", "eval_episodes", "evaluations"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name}={value!r} would train or measure nothing. Write an integer above 0.")
        if not isinstance(self.env, str):
            raise ValueError(f"env={self.env!r} is not the id of an environment. Write one, for example CartPole-v1.")
        for name in ("settings", "env_kwargs"):
            if not isinstance(getattr(self, name), dict):
                raise ValueError(f"{name}={getattr(self, name)!r} is not a mapping. Write it as {{name: value}}.")
        known = _settings(self.algorithm)
        for name in self.settings:
            if name not in known:
                raise ValueError(
                    f"Unknown setting {name!r} of {self.algorithm}. Did you mean {nearest(str(name), known)!r}?"
                )
        numbers = {"n_envs": self.n_envs, **self.arguments()}
        for name, (least, greatest) in _LIMITS.items():
            value = numbers.get(name)
            if isinstance(value, int | float) and not least <= value <= greatest:
                allowed = f"a number ≥ {least}" if greatest == math.inf else f"a number in [{least}, {greatest}]"
                raise ValueError(f"{name}={value} would make training impossible or wrong. Write {allowed}.")

    @property
    def n_envs(self) -> int:
        """Number of copies of the environment."""
        return _argument("n_envs", self.settings.get("n_envs", 1), 1)

    @property
    def normalize(self) -> bool:
        """Whether `VecNormalize` scales observations and rewards by running statistics."""
        return _argument("normalize", self.settings.get("normalize", False), False)

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of the algorithm, converted from YAML.

        Raises:
            ValueError: A value has the wrong type.
        """
        known = _settings(self.algorithm)
        given = {name: _argument(name, value, known[name]) for name, value in self.settings.items()}
        return {name: value for name, value in given.items() if name not in ("n_envs", "normalize")}


@dataclass(frozen=True)
class Command:
    """A parsed command line.

    Args:
        plan: The run of each seed.
        seeds: Seeds to train.
        output: Folder of the results.
        video: Whether to film an episode of each seed.
    """

    plan: Plan
    seeds: list[int]
    output: Path
    video: bool


def parse(argv: Sequence[str]) -> Command:
    """Parse the command line and the recipe. The command line overrides the recipe.

    Args:
        argv: Arguments of `python -m gbpo.control`.

    Raises:
        ValueError: The recipe does not exist, a key is unknown, or a value is invalid.
    """
    options = make_parser().parse_args(argv)
    if (options.recipe is None) == (options.env is None):
        which = "Neither is" if options.env is None else f"{options.recipe} and --env {options.env} are both"
        raise ValueError(
            f"{which} given, so it is unknown what to train on. Give either a recipe, such as cartpole, or --env "
            "with the id of an environment."
        )
    if options.recipe is None:
        recipe: dict[str, Any] = {"env": options.env}
    else:
        recipe = read_yaml(find_recipe(options.recipe))
    for name in recipe:
        if name not in (known := (*_RUN_KEYS, *ALGORITHMS)):
            raise ValueError(f"Unknown key {name!r} in {options.recipe}. Did you mean {nearest(str(name), known)!r}?")
    if "env" not in recipe:
        raise ValueError(f"env is missing in {options.recipe}: there is nothing to train on. Write env: CartPole-v1.")
    steps = recipe.get("steps") if options.steps is None else options.steps
    if steps is None:
        raise ValueError("steps is missing: the length of training is unknown. Write --steps 100000, for example.")
    given = {name: recipe[name] for name in ("env_kwargs", "eval_episodes", "evaluations") if name in recipe}
    for algorithm in ALGORITHMS:  # check the settings of both algorithms, whichever is chosen
        plan = Plan(recipe["env"], algorithm, steps, recipe.get(algorithm) or {}, **given)
        if algorithm == options.algorithm:
            chosen = plan
    seeds = options.seeds or recipe.get("seeds") or [0]
    if not isinstance(seeds, list) or any(type(seed) is not int or seed < 0 for seed in seeds):
        raise ValueError(f"seeds={seeds!r} must be integers ≥ 0. Write --seeds 0 1 2, for example.")
    name = chosen.env.replace("/", "-") if options.recipe is None else Path(options.recipe).stem
    output = options.output or Path("runs") / f"{name}-{chosen.algorithm}"
    return Command(chosen, list(dict.fromkeys(seeds)), output.expanduser(), options.video)


def make_parser() -> OneLineErrorParser:
    """The parser of the command."""
    parser = OneLineErrorParser(prog="gbpo control", description="Train and evaluate BPO or PPO.", allow_abbrev=False)
    parser.add_argument("recipe", nargs="?", help="a YAML file, or the name of a shipped recipe such as cartpole")
    parser.add_argument("--env", help="a Gymnasium id to train instead of a recipe")
    parser.add_argument("--algorithm", choices=list(ALGORITHMS), default="bpo", help="algorithm to train with (bpo)")
    parser.add_argument("--steps", type=int, help="environment steps of each seed (the recipe's)")
    parser.add_argument("--seeds", type=seed, nargs="+", help="seeds to train (the recipe's, or 0)")
    parser.add_argument("--output", type=Path, help="folder of the results (runs/NAME-ALGORITHM)")
    parser.add_argument("--video", action="store_true", help="film an episode of each finished seed")
    return parser


def _settings(algorithm: str) -> dict[str, Any]:
    """All settings of an algorithm, including those inherited from PPO, with their defaults."""
    found: dict[str, Any] = {"n_envs": 1, "normalize": False}
    for kind in reversed(ALGORITHMS[algorithm].__mro__[: ALGORITHMS[algorithm].__mro__.index(PPO) + 1]):
        parameters: dict[str, inspect.Parameter] = dict(inspect.signature(kind).parameters)
        found |= {name: parameter.default for name, parameter in parameters.items() if name not in _NOT_SETTINGS}
    return found


def _argument(name: str, value: Any, default: Any) -> Any:
    if name in _SCHEDULES and isinstance(value, str) and value.startswith("lin_"):
        return LinearSchedule(_number(name, value.removeprefix("lin_"), float), 0.0, 1.0)
    if name == "policy_kwargs":
        return _policy_arguments(value)
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise ValueError(f"{name}={value!r} is not a boolean. Write true or false.")
        return value
    if isinstance(default, int):
        return _number(name, value, int)
    if isinstance(default, float) or name in _SCHEDULES or name == "target_kl":
        return None if value is None and default is None else _number(name, value, float)
    return value


def _number(name: str, value: Any, kind: Callable[[Any], float]) -> Any:
    """Convert a number. YAML reads 3e-4 as text, because it has no decimal point."""
    try:
        number = kind(value)
        if isinstance(value, bool) or not math.isfinite(number) or number != float(value):
            raise ValueError
    except (TypeError, ValueError):
        wanted = "an integer" if kind is int else "a number"
        raise ValueError(f"{name}={value!r} is not {wanted}. Write {wanted}.") from None
    return number


def _policy_arguments(value: Any) -> dict[str, Any]:
    """`policy_kwargs` with the name of the activation function replaced by its class in `torch.nn`."""
    if not isinstance(value, dict):
        raise ValueError(f"policy_kwargs={value!r} is not a mapping. Write it as {{net_arch: [64, 64]}}, for example.")
    name = value.get("activation_fn")
    if name is None:
        return value
    activation = getattr(torch.nn, str(name), None)
    if activation is None:
        raise ValueError(
            f"activation_fn={name!r} is not in torch.nn. Did you mean {nearest(str(name), dir(torch.nn))!r}?"
        )
    return {**value, "activation_fn": activation}
