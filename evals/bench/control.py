"""Environment steps per second of BPO and of Stable-Baselines3's PPO, both with PPO's networks, rollouts and epochs.

Both run on one core. The time is processor time, so that other jobs on the machine do not affect the comparison.
"""

from __future__ import annotations

import argparse
import time

import torch

from .measuring import BenchResult, Measurement, bench_result, one_core


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
            for _ in range(options.repeats + 1):
                for name, agent in agents.items():
                    start = time.process_time()
                    agent.learn(rollout, reset_num_timesteps=False)
                    speeds[name].append(rollout / (time.process_time() - start))
            timed = [Measurement(f"{env}, {name}", values[1:], "steps/s") for name, values in speeds.items()]
            ratios = [
                ours / theirs for ours, theirs in zip(*(m.values for m in timed), strict=True)
            ]  # of consecutive rollouts
            found += [*timed, Measurement(f"{env}, BPO / PPO", ratios, "")]  # the first measurement is a warm-up
    return bench_result(found)
