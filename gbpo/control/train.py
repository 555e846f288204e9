"""`python -m gbpo.control`: train the seeds of a plan one after the other, each of them resumable."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.utils import safe_mean
from stable_baselines3.common.vec_env import VecEnv
from tqdm.auto import tqdm

from ..shared.commands import short_words
from . import agents, environments, evaluation, folder
from .checkpoints import Evaluation, Progress, last_checkpoint, read_progress, write_checkpoint
from .recipe import Command, Plan, parse
from .recipe import make_parser as make_parser
from .results import finished_seeds, write_results


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line. For bad input, print one line and exit with status 2."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        command = parse(words)
        folder.check(command.output, command.plan)
        agents.build(command.plan, command.seeds[0]).get_env().close()
        if command.video:
            evaluation.check_film(command.plan)
        locks = folder.claim(command)
        write_results(command.output, command.plan, short_words(["gbpo", "control", *words]))
        folder.check(command.output, command.plan)  # again, because another run may have begun in the folder
        _check_checkpoints(command)
    except (ValueError, ImportError) as error:
        print(f"gbpo control: error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        raise SystemExit(2) from None
    for seed in command.seeds:
        checkpoint = train(command.plan, seed, command.output)
        if command.video and checkpoint:
            path = evaluation.film(command.plan, checkpoint, command.output / f"seed-{seed}.webp")
            print(f"film:    {path}", flush=True)
        elif command.video:
            print(f"film:    none of seed {seed}, because its checkpoint is not in {command.output}", flush=True)
    for lock in locks:
        lock.release()
    print(f"curve:   {command.output / folder.CURVE}\nresults: {command.output / folder.RESULTS}", flush=True)


def _check_checkpoints(command: Command) -> None:
    """Load the checkpoint of each unfinished seed once, so that a damaged one is found before any training."""
    finished = finished_seeds(command.output)
    for seed in command.seeds:
        checkpoint = last_checkpoint(folder.seed_folder(command.output, seed))
        if checkpoint and seed not in finished:
            agents.load(command.plan, checkpoint, seed).get_env().close()


def train(plan: Plan, seed: int, output: Path) -> Path | None:
    """Train one seed to the end, from its last checkpoint if there is one.

    Args:
        plan: The run.
        seed: The seed to train. If `results.json` says that it is finished, nothing is trained.
        output: Folder of the results.

    Returns:
        The last checkpoint; None if the seed was finished before and its checkpoint is not in the folder.
    """
    seed_folder = folder.seed_folder(output, seed)
    checkpoint = last_checkpoint(seed_folder)
    if finished := finished_seeds(output).get(seed):
        print(f"seed {seed}: finished before, return {finished.curve[-1].mean:.1f}", flush=True)
        return checkpoint
    progress = read_progress(checkpoint)
    if checkpoint is None:
        agent = agents.build(plan, seed)
    else:
        agent = agents.load(plan, checkpoint, seed=seed + progress.steps)
    agent.set_logger(configure(str(seed_folder / f"log-from-{progress.steps}"), ["csv"]))
    evaluation_envs = evaluation.make_environments(plan, plan.eval_episodes)
    with tqdm(total=plan.steps, initial=progress.steps, desc=f"seed {seed}", unit="step", disable=None) as bar:
        checkpoints = EvaluateAndSave(plan, seed, output, progress, evaluation_envs, bar)
        agent.learn(plan.steps - progress.steps, checkpoints, reset_num_timesteps=False)
        last = checkpoints.evaluate_and_save()
    evaluation_envs.close()
    agent.get_env().close()
    return last


class EvaluateAndSave(BaseCallback):
    """Evaluates the agent and writes a checkpoint before training and then `plan.evaluations` times, evenly spread."""

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
        self._bar.update(self.num_timesteps - self._bar.n)
        if self.num_timesteps >= self._next_evaluation():
            self.evaluate_and_save()

    def _next_evaluation(self) -> int:
        """The number of environment steps at which the next evaluation is due."""
        plan = self._plan
        done = self._progress.steps * plan.evaluations // plan.steps
        return -(-(done + 1) * plan.steps // plan.evaluations) if self._progress.curve else 0

    def evaluate_and_save(self) -> Path:
        """Evaluate, write a checkpoint, update results and curve, and return the checkpoint."""
        self._seconds += time.perf_counter() - self._clock
        episodes = [episode["r"] for episode in self.model.ep_info_buffer or ()]
        sampled = evaluation.evaluate(self.model, self._envs, deterministic=False)
        atari = environments.is_atari(self._plan.env)  # sampled actions are usual there
        returns = sampled if atari else evaluation.evaluate(self.model, self._envs, deterministic=True)
        train_return = safe_mean(episodes) if episodes else None
        new = Evaluation(self.model.num_timesteps, self._seconds, returns, train_return, sampled)
        self._progress.curve.append(new)
        seed_folder = folder.seed_folder(self._output, self._seed)
        checkpoint = write_checkpoint(seed_folder, self._progress, partial(agents.save, self.model))
        write_results(self._output, self._plan)
        line = f"seed {self._seed}  step {new.steps}/{self._plan.steps}  return {new.mean:.1f} ± {new.std:.1f}"
        line += "" if atari else f" (sampled actions {safe_mean(sampled):.1f})"
        tqdm.write(f"{line}  {new.steps / new.seconds:.0f} steps/s" if new.steps else line)
        self._clock = time.perf_counter()
        return checkpoint
