"""Evaluation of an agent on fixed starts, and a film of one episode."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, sync_envs_normalization

from . import agents, environments
from .recipe import Plan

# Seed of the first evaluation episode. It is the same for all runs, so that episode k always has the same start, and it
# is far from the seeds of training.
_EVALUATION_SEED = 1_000_000


def make_environments(plan: Plan, episodes: int, **env_kwargs: Any) -> VecEnv:
    """Create one environment per episode, with unscaled rewards.

    Args:
        plan: The run.
        episodes: Number of episodes, and of environments.
        env_kwargs: Further arguments of the environment.
    """
    envs = environments.make(plan, episodes, _EVALUATION_SEED, **env_kwargs)
    return VecNormalize(envs, training=False, norm_reward=False) if plan.normalize else envs


def evaluate(
    agent: PPO, envs: VecEnv, deterministic: bool, before_step: Callable[[], None] = lambda: None
) -> list[float]:
    """Run one episode in each environment. The starts are the same in every call.

    Args:
        agent: The agent. If the agent normalises observations, its running statistics are used.
        envs: The environments that `make_environments` created.
        deterministic: Take the most likely action if true, else sample it, with the same random numbers in every call.
            The random numbers of training do not change.
        before_step: Called before each step.

    Returns:
        The undiscounted, unscaled return of each episode.
    """
    if isinstance(envs, VecNormalize):
        sync_envs_normalization(agent.get_env(), envs)
    envs.seed(_EVALUATION_SEED)
    observations = envs.reset()
    returns: dict[int, float] = {}
    with torch.random.fork_rng(devices=[] if agent.device.type == "cpu" else [agent.device]):
        torch.manual_seed(_EVALUATION_SEED)
        while len(returns) < envs.num_envs:
            before_step()
            actions, _ = agent.predict(observations, deterministic=deterministic)
            observations, _, _, infos = envs.step(actions)
            for index, info in enumerate(infos):
                if "episode" in info:  # Monitor reports the end of an Atari game here, not the loss of a life
                    returns.setdefault(index, float(info["episode"]["r"]))
    return [returns[index] for index in range(envs.num_envs)]


def check_film(plan: Plan) -> None:
    """Render one frame, so that a film cannot fail after the training.

    Raises:
        ValueError: The environment cannot be rendered.
    """
    try:
        envs = _filmed_environment(plan)
        envs.reset()
        Image.fromarray(envs.render())
    except Exception as error:  # the type depends on the environment and its renderer
        raise ValueError(
            f"env={plan.env!r} cannot be rendered, so there would be no film ({type(error).__name__}: {error}). "
            "Remove --video."
        ) from error
    envs.close()


def film(plan: Plan, checkpoint: Path, path: Path) -> Path:
    """Write the first evaluation episode of a trained agent as an animated WebP.

    Args:
        plan: The run that wrote the checkpoint.
        checkpoint: Checkpoint folder of the agent.
        path: File to write.

    Returns:
        `path`.
    """
    agent, envs = agents.load(plan, checkpoint, seed=0), _filmed_environment(plan)
    frames: list[Image.Image] = []
    evaluate(agent, envs, not environments.is_atari(plan.env), lambda: frames.append(Image.fromarray(envs.render())))
    duration = 1000 / envs.metadata.get("render_fps", 30)  # ms
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=duration, loop=0, method=0)
    envs.close()
    return path


def _filmed_environment(plan: Plan) -> VecEnv:
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame prints an error where there is no screen
    return make_environments(plan, 1, render_mode="rgb_array")
