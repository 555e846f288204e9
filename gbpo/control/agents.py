"""Agents of a plan: a new one, or one loaded from a checkpoint."""

from __future__ import annotations

from pathlib import Path

from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from . import environments
from .checkpoints import damaged
from .recipe import ALGORITHMS, Plan

_MODEL, _STATISTICS = "model.zip", "normalize.pkl"


def build(plan: Plan, seed: int) -> PPO:
    """Create the untrained agent and its training environments.

    Args:
        plan: The run.
        seed: Seed of the weights, the environments and the sampled actions.

    Raises:
        ValueError: The environment or the algorithm rejects its settings.
        ImportError: The environment needs a package that is not installed.
    """
    envs = environments.make(plan, plan.n_envs, seed)
    policy = environments.policy_for(envs.observation_space)
    arguments = {**plan.arguments(), "device": _device(plan, envs)}
    if plan.normalize:
        envs = VecNormalize(envs, gamma=arguments.get("gamma", 0.99))
    try:
        return ALGORITHMS[plan.algorithm](policy, envs, seed=seed, **arguments)
    except (AssertionError, RuntimeError, TypeError) as error:  # RuntimeError: an unknown device
        raise ValueError(
            f"{plan.algorithm} rejects the settings {plan.settings} with {plan.env}: {error}. Correct them in the "
            "recipe."
        ) from None


def save(agent: PPO, folder: Path) -> None:
    """Write the model, and the running statistics of `VecNormalize` if there are any, into a folder."""
    agent.save(folder / _MODEL)
    if (statistics := agent.get_vec_normalize_env()) is not None:
        statistics.save(str(folder / _STATISTICS))


def load(plan: Plan, checkpoint: Path, seed: int) -> PPO:
    """Load the agent of a checkpoint into new environments.

    Args:
        plan: The run that wrote the checkpoint.
        checkpoint: The folder that `save` wrote.
        seed: New seed. Random states and running episodes are not saved.

    Raises:
        ValueError: The checkpoint cannot be read.
    """
    envs = environments.make(plan, plan.n_envs, seed)
    try:
        if plan.normalize:
            envs = VecNormalize.load(str(checkpoint / _STATISTICS), envs)
        agent = ALGORITHMS[plan.algorithm].load(checkpoint / _MODEL, envs, device=_device(plan, envs))
    except Exception as error:  # the type depends on where the file is damaged
        raise damaged(checkpoint, error) from error
    agent.set_random_seed(seed)
    return agent


def _device(plan: Plan, envs: VecEnv) -> str:
    """The device of the plan; by default the CPU for MLP policies, which are faster there."""
    small = environments.policy_for(envs.observation_space) == "MlpPolicy"
    return plan.settings.get("device", "cpu" if small else "auto")
