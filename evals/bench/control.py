"""Environment steps per second of BPO and of Stable-Baselines3's PPO, both with PPO's networks, rollouts and epochs.

The update is also measured alone. Both run on one core. The time is processor time, so that other jobs on the machine
do not affect the comparison.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

import torch

from .measuring import BenchResult, Measurement, bench_result, one_core

if TYPE_CHECKING:
    from stable_baselines3 import PPO


def run(options: argparse.Namespace) -> BenchResult:
    """Measure both algorithms alternately, and the ratio of their speeds."""
    from stable_baselines3 import PPO

    from gbpo.control import BPO

    torch.set_num_threads(1)
    layers = {"net_arch": [64, 64], "activation_fn": torch.nn.Tanh}
    rollout = 128 if options.quick else 2048
    found = []
    with one_core():
        for env in ("CartPole-v1", "Pendulum-v1"):
            agents = {
                kind.__name__: kind("MlpPolicy", env, policy_kwargs=layers, seed=0, n_steps=rollout, device="cpu")
                for kind in (BPO, PPO)
            }
            speeds: dict[str, list[float]] = {name: [] for name in agents}
            updates: dict[str, list[float]] = {name: [] for name in agents}
            for _ in range(options.repeats + 1):
                for name, agent in agents.items():
                    whole, update = _seconds(agent, rollout)
                    speeds[name].append(rollout / whole)
                    updates[name].append(1000 * update)
            timed = [Measurement(f"{env}, {name}", values[1:], "steps/s") for name, values in speeds.items()]
            timed += [Measurement(f"{env}, {name}, update", values[1:], "ms") for name, values in updates.items()]
            bpo, ppo, bpo_update, ppo_update = (measurement.values for measurement in timed)
            faster = [ours / theirs for ours, theirs in zip(bpo, ppo, strict=True)]  # of consecutive rollouts
            faster_update = [theirs / ours for ours, theirs in zip(bpo_update, ppo_update, strict=True)]
            found += [*timed, Measurement(f"{env}, BPO / PPO", faster, "")]  # the first measurement is a warm-up
            found.append(Measurement(f"{env}, BPO / PPO, speed of the update", faster_update, ""))
    return bench_result(found)


def _seconds(agent: PPO, rollout: int) -> tuple[float, float]:
    """Processor time of one rollout with its update, and of the update alone."""
    update = 0.0
    train = agent.train

    def timed() -> None:
        nonlocal update
        begun = time.process_time()
        train()
        update = time.process_time() - begun

    agent.train = timed
    start = time.process_time()
    agent.learn(rollout, reset_num_timesteps=False)
    whole = time.process_time() - start
    agent.train = train
    return whole, update
