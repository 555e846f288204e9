"""Timed comparisons.

    python -m evals.bench rewards    what the rewards grade in a second
    python -m evals.bench control    environment steps in a second, BPO beside Stable-Baselines3's PPO

One core unless a line says otherwise: the process and its workers are bound to it. Medians over `--repeats` runs, so
run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

from rewards.batch import default_workers
from rewards.code import Code
from rewards.math import Math

BATCH = 512
_WORDS = "We add the two numbers and carry the one, which gives the next digit of the sum. "
_TEXT = (_WORDS * 40)[:3000]  # what a completion of a maths problem says before its answer
_TOWER = r"\boxed{9^{9^{9^9}}}"
_PROGRAM = "Here it is.\n```python\nn = int(input())\nprint(sum(i * i for i in range(n)))\n```\n"
_TESTS = {
    "type": "stdin",
    "cases": [{"input": f"{n}\n", "output": f"{sum(i * i for i in range(n))}\n"} for n in range(100, 110)],
}


def main() -> None:
    """Print one line per measurement."""
    benches = {"rewards": bench_rewards, "control": bench_control}
    parser = argparse.ArgumentParser(
        prog="python -m evals.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=list(benches))
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    benches[options.what](options.repeats)


def bench_rewards(repeats: int) -> None:
    """Completions per second of `math` and `code`, the cost of hostile ones, and both rewards at once."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    maths, code = Math(workers=1), Code(workers=1)
    maths.grade([r"\boxed{4.0}"], [4])  # starts the worker
    kinds = {
        "integer answers": [(rf"{_TEXT}\boxed{{{n}}}", str(n + n % 2)) for n in range(BATCH)],
        "fractions": [(rf"{_TEXT}\boxed{{\frac{{{n}}}{{7}}}}", rf"\frac{{{2 * n}}}{{14}}") for n in range(BATCH)],
        "polynomials": [(rf"{_TEXT}\boxed{{{n}x(x+1)}}", rf"{n}x^2+{n}x") for n in range(1, 65)],
    }
    clean = [*kinds["integer answers"][: BATCH // 2], *kinds["fractions"][: BATCH // 2]]
    for name, pairs in {**kinds, "integers and fractions": clean}.items():
        seconds = _median(functools.partial(maths.grade, *zip(*pairs, strict=True)), repeats)
        print(f"math, {name}: {len(pairs) / seconds:.0f} completions/s")
    hostile = [(_TOWER, "4") if place % 50 == 0 else pair for place, pair in enumerate(clean)]
    seconds = _median(lambda: maths.grade(*zip(*hostile, strict=True)), repeats)
    print(f"math, batch of {BATCH} with {sum(text == _TOWER for text, _ in hostile)} power towers: {seconds:.1f} s")

    programs = 32
    seconds = _median(lambda: code.grade([_PROGRAM] * programs, [_TESTS] * programs), repeats)
    print(f"code, ten tests each: {programs / seconds:.1f} completions/s")
    maths.close()

    os.sched_setaffinity(0, cores)
    workers = default_workers()
    if workers > 1:
        many = Code(workers=workers)
        seconds = _median(lambda: many.grade([_PROGRAM] * programs, [_TESTS] * programs), repeats)
        print(f"code, {workers} workers on {len(cores)} cores: {programs / seconds:.1f} completions/s")

    texts, golds = zip(*clean, strict=True)

    async def both() -> None:
        await asyncio.gather(maths(texts, solution=golds), code([_PROGRAM] * programs, tests=[_TESTS] * programs))

    maths.grade([r"\boxed{4.0}"], [4])
    one_after_another = _median(lambda: maths.grade(texts, golds), repeats)
    one_after_another += _median(lambda: code.grade([_PROGRAM] * programs, [_TESTS] * programs), repeats)
    at_once = _median(lambda: asyncio.run(both()), repeats)
    print(f"math and code of one batch, {len(cores)} cores: {one_after_another:.1f} s in turn, {at_once:.1f} s at once")
    maths.close()


def bench_control(repeats: int) -> None:
    """Environment steps per second of BPO and PPO, in turn, with PPO's default networks, rollouts and epochs.

    Seconds are the processor's, so that other jobs on the machine favour neither.
    """
    import torch
    from stable_baselines3 import PPO

    from gbpo.control import BPO

    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    layers = {"net_arch": [64, 64], "activation_fn": torch.nn.Tanh}
    rollout = 2048
    for env in ("CartPole-v1", "Pendulum-v1"):
        agents = {
            kind.__name__: kind("MlpPolicy", env, policy_kwargs=layers, seed=0, device="cpu") for kind in (BPO, PPO)
        }
        seconds: dict[str, list[float]] = {name: [] for name in agents}
        for _ in range(repeats + 1):
            for name, agent in agents.items():
                start = time.process_time()
                agent.learn(rollout, reset_num_timesteps=False)
                seconds[name].append(time.process_time() - start)
        speeds = {name: rollout / statistics.median(times[1:]) for name, times in seconds.items()}  # the first warms up
        shown = ", ".join(f"{name} {speed:.0f} steps/s" for name, speed in speeds.items())
        print(f"{env}, one core: {shown}, BPO / PPO {speeds['BPO'] / speeds['PPO']:.2f}", flush=True)


def _median(work: Callable[[], Any], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
