"""Gymnasium environments of a plan, vectorised for Stable-Baselines3."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import gymnasium
from gymnasium import spaces
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack

from ..shared.packages import install_command
from .recipe import Plan


def make(plan: Plan, n_envs: int, seed: int, **env_kwargs: Any) -> VecEnv:
    """Create copies of the plan's environment in one process.

    Atari games get the wrappers of Stable-Baselines3 and a stack of four frames.

    Args:
        plan: The run.
        n_envs: Number of copies.
        seed: Seed of the first copy; the others count up from it.
        env_kwargs: Arguments of the environment, in addition to the plan's.

    Raises:
        ValueError: The environment does not exist, or it rejects its arguments.
        ImportError: The environment needs a package that is not installed.
    """
    atari = is_atari(plan.env)
    make_one = make_atari_env if atari else make_vec_env
    try:
        envs = make_one(plan.env, n_envs, seed, env_kwargs={**plan.env_kwargs, **env_kwargs})
    except gymnasium.error.DependencyNotInstalled as error:
        raise ImportError(f"env={plan.env!r}: {' '.join(str(error).split())}") from None
    except (gymnasium.error.Error, TypeError) as error:
        raise ValueError(
            f"env={plan.env!r} with env_kwargs={plan.env_kwargs} cannot be created: {' '.join(str(error).split())}"
        ) from None
    return VecFrameStack(envs, n_stack=4) if atari else envs


def is_atari(env: str) -> bool:
    """Whether the id is an Atari game of ale-py. Registers the games if ale-py is installed."""
    if find_spec("ale_py") is None:
        if "NoFrameskip" in env or env.startswith("ALE/"):
            raise ImportError(f"env={env!r} needs ale-py, which is not installed: {install_command('atari')}.")
        return False
    import ale_py

    gymnasium.register_envs(ale_py)
    spec = gymnasium.registry.get(env)
    return spec is not None and str(spec.entry_point).startswith("ale_py")


def policy_for(space: spaces.Space) -> str:
    """Name of the policy class for observations of this space."""
    if isinstance(space, spaces.Dict):
        return "MultiInputPolicy"
    return "CnnPolicy" if is_image_space(space) else "MlpPolicy"
