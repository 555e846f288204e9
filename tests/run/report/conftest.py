"""Folders of made-up runs."""

import json

import pytest

CONFIG = {
    "command": ["gbpo", "train", "mine.yaml", "--seed", "1"],
    "command_to_continue": "gbpo train mine.yaml --seed 1 --output_dir runs/mine --resume_from_checkpoint auto",
    "started": "2026-11-01 10:00:00",
    "gbpo": "0.1.0",
    "git_revision": None,
    "versions": {"torch": "2.13.0", "vllm": None},
    "hardware": {"cpu": "a processor", "cores": 2, "memory_gb": 8.0, "gpus": []},
    "changed": {"run": [], "model": [], "training": ["learning_rate"]},
    "run": {"algorithm": "gbpo"},
    "model": {},
    "training": {"max_steps": 40, "world_size": 1, "use_cpu": True, "learning_rate": 0.001},
}


@pytest.fixture
def make_run(tmp_path):
    """`make_run(metrics, ends, **config)`: the folder of a run with these logs and lines of `report.txt`."""

    def make(metrics=(), ends=(), **config):
        run = tmp_path / "mine"
        run.mkdir()
        (run / "config.json").write_text(json.dumps(CONFIG | config))
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics))
        if ends:
            (run / "report.txt").write_text("".join(line + "\n" for line in ends))
        return run

    return make


@pytest.fixture
def resume():
    """`resume(run, step, **config)`: the configuration of a resume at this step."""

    def write(run, step, **config):
        (run / f"config-from-{step}.json").write_text(json.dumps(CONFIG | config))

    return write


@pytest.fixture
def logs():
    """`logs(steps, **more)`: logs of two optimiser steps per generation. Generating takes 3 s and a loss 1 s."""

    def rows(steps, **more):
        return [
            {
                "step": step,
                "elapsed": 5.0 * step,
                "loss": 0.1,
                "reward": step / 100,
                "reward_std": 0.25,
                "entropy": 1.0,
                "grad_norm": 0.5,
                "completions/mean_length": 3.0,
                "completions/max_length": 4.0,
                "gbpo/outside_bounds": 0.02,
                "num_tokens": 1000.0 * ((step + 1) // 2),
                "peak_memory_gb": 1.5,
                "time/generate": 3.0 if step % 2 else 0.0,
                "time/loss": 1.0,
                **more,
            }
            for step in range(1, steps + 1)
        ]

    return rows
