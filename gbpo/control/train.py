"""Train a plan's seeds one after the other, each resumable, and leave results, curves and, on request, films."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.utils import safe_mean
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, sync_envs_normalization
from tqdm.auto import tqdm

from . import environments, folder
from .folder import Point, Progress
from .recipe import ALGORITHMS, Plan, parse

MODEL, STATISTICS = "model.zip", "normalize.pkl"

# of all runs, so that episode k starts alike in each; far from the seeds of training
_EVALUATION_SEED = 1_000_000


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; on bad input print one line and exit with status 2."""
    try:
        command = parse(sys.argv[1:] if argv is None else argv)
        folder.check(command.output, command.plan)
        build(command.plan, command.seeds[0]).get_env().close()
        locks = folder.claim(command)
        folder.write_results(command.output, command.plan)
    except (ValueError, ImportError) as error:
        print(f"gbpo.control: error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        raise SystemExit(2) from None
    for seed in command.seeds:
        checkpoint = train(command.plan, seed, command.output)
        if command.video:
            print(f"film:    {film(command.plan, checkpoint, command.output / f'seed-{seed}.webp')}", flush=True)
    for lock in locks:
        lock.release()
    print(f"curve:   {command.output / folder.CURVE}\nresults: {command.output / folder.RESULTS}", flush=True)


def build(plan: Plan, seed: int) -> PPO:
    """The untrained agent in its environments.

    Raises:
        ValueError: The environment or the algorithm refuses its settings.
        ImportError: What the environment needs is not installed.
    """
    envs = environments.make(plan, plan.n_envs, seed)
    policy = environments.policy_for(envs.observation_space)
    arguments = {**plan.arguments(), "device": _device(plan, envs)}
    if plan.normalize:
        envs = VecNormalize(envs, gamma=arguments.get("gamma", 0.99))
    try:
        return ALGORITHMS[plan.algorithm](policy, envs, seed=seed, **arguments)
    except (AssertionError, TypeError) as error:
        raise ValueError(f"{plan.algorithm} refuses {plan.settings} with {plan.env}: {error}") from None


def train(plan: Plan, seed: int, output: Path) -> Path:
    """Train one seed from its last checkpoint, or from the start, to the end.

    Returns:
        The checkpoint at the end; where there was one already, nothing is trained.
    """
    place = folder.seed_folder(output, seed)
    checkpoint = folder.last_checkpoint(place)
    progress = folder.read_progress(checkpoint)
    if checkpoint is not None and progress.steps >= plan.steps:
        print(f"seed {seed}: finished before, return {progress.curve[-1].mean:.1f}", flush=True)
        return checkpoint
    agent = build(plan, seed) if checkpoint is None else load(plan, checkpoint, seed=seed + progress.steps)
    agent.set_logger(configure(str(place / f"log-from-{progress.steps}"), ["csv"]))
    evaluation_envs = evaluation(plan, plan.eval_episodes)
    with tqdm(total=plan.steps, initial=progress.steps, desc=f"seed {seed}", unit="step", disable=None) as bar:
        marks = Marks(plan, seed, output, progress, evaluation_envs, bar)
        agent.learn(plan.steps - progress.steps, marks, reset_num_timesteps=False)
        last = marks.mark()
    evaluation_envs.close()
    agent.get_env().close()
    return last


def load(plan: Plan, checkpoint: Path, seed: int) -> PPO:
    """The agent of a checkpoint in new environments; episodes and random numbers start afresh."""
    envs = environments.make(plan, plan.n_envs, seed)
    if plan.normalize:
        envs = VecNormalize.load(str(checkpoint / STATISTICS), envs)
    agent = ALGORITHMS[plan.algorithm].load(checkpoint / MODEL, envs, device=_device(plan, envs))
    agent.set_random_seed(seed)
    return agent


def _device(plan: Plan, envs: VecEnv) -> str:
    """The plan's, else the CPU for small networks, which are faster there."""
    small = environments.policy_for(envs.observation_space) == "MlpPolicy"
    return plan.settings.get("device", "cpu" if small else "auto")


class Marks(BaseCallback):
    """Evaluates the agent and writes a checkpoint, before training and at each of the plan's marks."""

    def __init__(self, plan: Plan, seed: int, output: Path, progress: Progress, envs: VecEnv, bar: tqdm):
        super().__init__()
        self._plan = plan
        self._seed = seed
        self._output = output
        self._progress = progress
        self._envs = envs
        self._bar = bar
        self._seconds = progress.seconds
        self._clock = time.perf_counter()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        """The policy has just been updated, or not at all yet."""
        self._bar.update(self.num_timesteps - self._bar.n)
        if self.num_timesteps >= self._next_mark():
            self.mark()

    def _next_mark(self) -> int:
        """The first mark after the last evaluation."""
        plan = self._plan
        passed = self._progress.steps * plan.evaluations // plan.steps
        return -(-(passed + 1) * plan.steps // plan.evaluations) if self._progress.curve else 0

    def mark(self) -> Path:
        """Evaluate, write the checkpoint, bring results and curve up to date, and return the checkpoint."""
        self._seconds += time.perf_counter() - self._clock
        episodes = [episode["r"] for episode in self.model.ep_info_buffer or ()]
        returns = evaluate(self.model, self._envs, deterministic=not environments.is_atari(self._plan.env))
        point = Point(self.model.num_timesteps, self._seconds, returns, safe_mean(episodes) if episodes else None)
        self._progress.curve.append(point)
        checkpoint = folder.write_checkpoint(folder.seed_folder(self._output, self._seed), self._progress, self._save)
        folder.write_results(self._output, self._plan)
        done = f"seed {self._seed}  step {point.steps}/{self._plan.steps}  return {point.mean:.1f} ± {point.std:.1f}"
        tqdm.write(f"{done}  {point.steps / point.seconds:.0f} steps/s" if point.steps else done)
        self._clock = time.perf_counter()
        return checkpoint

    def _save(self, place: Path) -> None:
        self.model.save(place / MODEL)
        if (statistics := self.model.get_vec_normalize_env()) is not None:
            statistics.save(str(place / STATISTICS))


def evaluation(plan: Plan, episodes: int, **env_kwargs: Any) -> VecEnv:
    """As many environments as episodes, with unscaled rewards."""
    envs = environments.make(plan, episodes, _EVALUATION_SEED, **env_kwargs)
    return VecNormalize(envs, training=False, norm_reward=False) if plan.normalize else envs


def evaluate(
    agent: PPO, envs: VecEnv, deterministic: bool, before_step: Callable[[], None] = lambda: None
) -> list[float]:
    """Return of the first episode of each environment, undiscounted and unscaled; the starts are always the same.

    Args:
        agent: Whose statistics scale the observations, where it has some.
        envs: As `evaluation` makes them.
        deterministic: Take the likeliest action; else sample.
        before_step: Called before each step.
    """
    if isinstance(envs, VecNormalize):
        sync_envs_normalization(agent.get_env(), envs)
    envs.seed(_EVALUATION_SEED)
    observations = envs.reset()
    returns: dict[int, float] = {}
    while len(returns) < envs.num_envs:
        before_step()
        actions, _ = agent.predict(observations, deterministic=deterministic)
        observations, _, _, infos = envs.step(actions)
        for place, info in enumerate(infos):
            if "episode" in info:  # Monitor's, which for Atari ends with the game, not with a life
                returns.setdefault(place, float(info["episode"]["r"]))
    return [returns[place] for place in range(envs.num_envs)]


def film(plan: Plan, checkpoint: Path, path: Path) -> Path:
    """Film a trained agent in the first episode of its evaluations, as an animated WebP."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame looks for a screen, and complains where there is none
    agent, envs = load(plan, checkpoint, seed=0), evaluation(plan, 1, render_mode="rgb_array")
    pictures: list[Image.Image] = []
    evaluate(agent, envs, not environments.is_atari(plan.env), lambda: pictures.append(Image.fromarray(envs.render())))
    duration = 1000 / envs.metadata.get("render_fps", 30)  # ms
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=duration, loop=0, method=0)
    envs.close()
    return path
