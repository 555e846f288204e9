"""Train a plan's seeds one after the other, each resumable, and leave results, curves and, on request, films."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import imageio
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
        train(command.plan, seed, command.output)
        if command.video:
            print(f"film:    {film(command.plan, seed, command.output)}", flush=True)
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
    arguments = plan.arguments()
    if policy == "MlpPolicy":
        arguments.setdefault("device", "cpu")  # small networks are faster there
    if plan.normalize:
        envs = VecNormalize(envs, gamma=arguments.get("gamma", 0.99))
    try:
        return ALGORITHMS[plan.algorithm](policy, envs, seed=seed, **arguments)
    except (AssertionError, TypeError) as error:
        raise ValueError(f"{plan.algorithm} refuses {plan.settings} with {plan.env}: {error}") from None


def train(plan: Plan, seed: int, output: Path) -> None:
    """Train one seed from its last checkpoint, or from the start, to the end; nothing where it has ended already."""
    place = folder.seed_folder(output, seed)
    checkpoint = folder.last_checkpoint(place)
    progress = folder.read_progress(checkpoint)
    if progress.steps >= plan.steps:
        print(f"seed {seed}: finished before, return {progress.curve[-1].mean:.1f}", flush=True)
        return
    agent = build(plan, seed) if checkpoint is None else load(plan, checkpoint, seed=seed + progress.steps)
    agent.set_logger(configure(str(place / f"log-from-{progress.steps}"), ["csv"]))
    evaluation_envs = evaluation(plan)
    with tqdm(total=plan.steps, initial=progress.steps, desc=f"seed {seed}", unit="step", disable=None) as bar:
        marks = Marks(plan, seed, output, progress, evaluation_envs, bar)
        agent.learn(plan.steps - progress.steps, marks, reset_num_timesteps=False)
        marks.mark()
    evaluation_envs.close()
    agent.get_env().close()


def load(plan: Plan, checkpoint: Path, seed: int) -> PPO:
    """The agent of a checkpoint in new environments; episodes and random numbers start afresh."""
    envs = environments.make(plan, plan.n_envs, seed)
    if plan.normalize:
        envs = VecNormalize.load(str(checkpoint / STATISTICS), envs)
    agent = ALGORITHMS[plan.algorithm].load(checkpoint / MODEL, envs)
    agent.set_random_seed(seed)
    return agent


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
        self._resumed = bool(progress.curve)
        self._seconds = progress.seconds
        self._clock = time.perf_counter()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        """The policy has just been updated, or not at all yet."""
        self._bar.update(self.num_timesteps - self._bar.n)
        if self._resumed:  # its checkpoint has been evaluated
            self._resumed = False
        elif self.num_timesteps >= self._next_mark():
            self.mark()

    def _next_mark(self) -> int:
        """The first mark after the last evaluation."""
        plan = self._plan
        passed = self._progress.steps * plan.evaluations // plan.steps
        return -(-(passed + 1) * plan.steps // plan.evaluations) if self._progress.curve else 0

    def mark(self) -> None:
        """Evaluate, write the checkpoint, and bring results and curve up to date."""
        self._seconds += time.perf_counter() - self._clock
        episodes = [episode["r"] for episode in self.model.ep_info_buffer or ()]
        returns = evaluate(self.model, self._envs, deterministic=not environments.is_atari(self._plan.env))
        point = Point(self.model.num_timesteps, self._seconds, returns, safe_mean(episodes) if episodes else None)
        self._progress.curve.append(point)
        folder.write_checkpoint(folder.seed_folder(self._output, self._seed), self._progress, self._save)
        folder.write_results(self._output, self._plan)
        done = f"seed {self._seed}  step {point.steps}/{self._plan.steps}  return {point.mean:.1f} ± {point.std:.1f}"
        tqdm.write(f"{done}  {point.steps / point.seconds:.0f} steps/s" if point.steps else done)
        self._clock = time.perf_counter()

    def _save(self, place: Path) -> None:
        self.model.save(place / MODEL)
        if (statistics := self.model.get_vec_normalize_env()) is not None:
            statistics.save(str(place / STATISTICS))


def evaluation(plan: Plan) -> VecEnv:
    """As many environments as an evaluation has episodes, with unscaled rewards."""
    envs = environments.make(plan, plan.eval_episodes, _EVALUATION_SEED)
    return VecNormalize(envs, training=False, norm_reward=False) if plan.normalize else envs


def evaluate(agent: PPO, envs: VecEnv, deterministic: bool) -> list[float]:
    """Return of the first episode of each environment, undiscounted and unscaled; the starts are always the same.

    Args:
        agent: Whose statistics scale the observations, where it has some.
        envs: As `evaluation` makes them.
        deterministic: Take the likeliest action; else sample.
    """
    if isinstance(envs, VecNormalize):
        sync_envs_normalization(agent.get_env(), envs)
    envs.seed(_EVALUATION_SEED)
    observations = envs.reset()
    returns: dict[int, float] = {}
    while len(returns) < envs.num_envs:
        actions, _ = agent.predict(observations, deterministic=deterministic)
        observations, _, _, infos = envs.step(actions)
        for place, info in enumerate(infos):
            if "episode" in info:  # Monitor's, which for Atari ends with the game, not with a life
                returns.setdefault(place, float(info["episode"]["r"]))
    return [returns[place] for place in range(envs.num_envs)]


def film(plan: Plan, seed: int, output: Path) -> Path:
    """Write an episode of a trained seed to `seed-N.mp4`, as it is evaluated."""
    checkpoint = folder.last_checkpoint(folder.seed_folder(output, seed))
    agent = load(plan, checkpoint, seed)
    envs = environments.make(plan, 1, _EVALUATION_SEED, render_mode="rgb_array")
    if plan.normalize:
        envs = VecNormalize.load(str(checkpoint / STATISTICS), envs)
        envs.training = False
    path = output / f"seed-{seed}.mp4"
    observations, ended = envs.reset(), False
    with imageio.get_writer(path, fps=envs.metadata.get("render_fps", 30), macro_block_size=2) as writer:
        while not ended:
            writer.append_data(envs.render())
            actions, _ = agent.predict(observations, deterministic=not environments.is_atari(plan.env))
            observations, _, _, infos = envs.step(actions)
            ended = "episode" in infos[0]
    envs.close()
    return path
