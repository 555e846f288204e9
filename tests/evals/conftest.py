"""Small comparisons with known results."""

import pytest

from evals.shared.results import Cell, Evaluation, Results

SAMPLES = 4


def evaluation(correct, step=40):
    """An evaluation with the given number of correct samples per question."""
    return Evaluation(
        step=step,
        samples=SAMPLES,
        scores=[c / SAMPLES for c in correct],
        correct=list(correct),
        majority=[float(c > SAMPLES / 2) for c in correct],
        greedy=[float(c > 0) for c in correct],
        completions=None,
        mean_tokens=12.0,
        truncated=0.0,
        kl_to_start=0.5,
    )


def cell(algorithm, seed, correct, setting=None, **fields):
    """A finished run with four logs and two validations. `fields` replace its fields, and `series` its metrics."""
    setting = setting or {}
    series = {
        "step": [10, 20, 20, 30, 40, 40],
        "elapsed": [1.0, 2.0, None, 3.0, 4.0, None],
        "num_tokens": [100.0, 200.0, None, 300.0, 400.0, None],
        "reward": [0.1, 0.2, None, 0.3, 0.4, None],
        "eval_reward": [None, None, 0.2, None, None, 0.4],
        "entropy": [2.0, 1.8, None, 1.5, 1.0, None],
        "grad_norm": [1.0, 1.0, None, 1.0, 1.0, None],
        "gbpo/outside_bounds": [0.0, 0.1, None, 0.1, 0.2, None],
        "gbpo/ratio_p01": [0.9, 0.8, None, 0.7, 0.8, None],
        "gbpo/ratio_p99": [1.1, 1.2, None, 1.4, 1.3, None],
    } | fields.pop("series", {})
    where = "-".join([algorithm, *(f"{name}={value}" for name, value in setting.items()), str(seed)])
    values = {
        "status": "done",
        "command": "launch/gbpo.py",
        "seconds": 6.0,
        "train_seconds": 5.0,
        "tokens": 400.0,
        "peak_memory_gb": 1.5,
        "last": evaluation(correct) if correct else None,
        "best": evaluation(correct, step=20) if correct else None,
    } | fields
    return Cell(algorithm=algorithm, setting=setting, seed=seed, folder=where, series=series, **values)


@pytest.fixture
def make_cell():
    return cell


@pytest.fixture
def make_results():
    """`make_results(cells, algorithms=("grpo", "gbpo"))` → a comparison with these cells."""

    def make(cells, algorithms=("grpo", "gbpo")):
        grid: dict[str, list] = {}
        for name, value in [item for made in cells for item in made.setting.items()]:
            if value not in grid.setdefault(name, []):
                grid[name].append(value)
        return Results(
            command="python -m evals.compare recipes/tiny_math.yaml",
            created="2026-01-01T00:00:00+00:00",
            git_revision="0123456",
            versions={"gbpo": "0"},
            hardware={"cpu": "a processor", "cores": 2, "memory_gb": 8.0, "gpus": []},
            recipe="recipes/tiny_math.yaml",
            recipe_text="max_steps: 40\n",
            overrides=[],
            algorithms=list(algorithms),
            grid=grid,
            seeds=sorted({made.seed for made in cells}),
            evaluation={"samples": SAMPLES},
            questions=[],
            start=None,
            notes=[],
            cells=list(cells),
        )

    return make
