"""The reward of the first and of the last logs, and the lines at the end of a run."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from gbpo.run import train
from gbpo.run.output.trend import Trend


def rows_of(values):
    return [{"step": step, "reward": value} for step, value in enumerate(values, 1)]


def test_the_first_and_the_last_fifth_with_their_spread():
    """12 logs, so 2 at each end: (0.1 + 0.3) / 2 = 0.2 and sqrt(2 · 0.1²) = 0.141; (0.9 + 0.7) / 2 = 0.8."""
    trend = Trend.of(rows_of([0.1, 0.3, *[0.5] * 8, 0.9, 0.7]), "reward")
    assert (trend.first.mean, trend.last.mean) == pytest.approx((0.2, 0.8))
    assert (trend.first.spread, trend.last.spread) == pytest.approx((0.02**0.5, 0.02**0.5))
    words = "0.200 ± 0.141 in the first 2 of 12 logs, 0.800 ± 0.141 in the last 2 (mean ± standard deviation of the"
    assert trend.text(".3f").startswith(words)


@pytest.mark.parametrize("logs", [1, 5, 9])
def test_one_log_has_no_spread(logs):
    trend = Trend.of(rows_of([0.1] + [0.5] * (logs - 2) + [0.9] * (logs > 1)), "reward")
    last = 0.9 if logs > 1 else 0.1
    assert trend.text(".1f") == f"0.1 in the first of {logs} logs, {last} in the last"


def test_logs_without_the_metric_do_not_count():
    """Evaluations have no training reward, and a reward that is not finite is null in the file."""
    assert Trend.of([{"step": 1, "eval_reward": 1.0}, {"step": 2, "reward": None}], "reward") is None
    assert Trend.of([{"step": 1, "eval_reward": 1.0}, *rows_of([0.5])], "reward").logs == 1


@pytest.mark.parametrize(
    ("values", "change", "first_line"),
    [
        ([0.1, 0.3, *[0.5] * 8], "reward 0.20 -> 0.50", "reward:  0.200 ± 0.141 in the first 2 of 10 logs, 0.500"),
        ([], "no reward logged before step logging_steps=10 (write a smaller logging_steps)", "report:"),
        ([None], "no reward logged", "report:"),
    ],
)
def test_the_summary_compares_means(tmp_path, values, change, first_line):
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of(values)))
    training = SimpleNamespace(run_name="demo", log_completions=False, logging_strategy="steps", logging_steps=10)
    recipe = SimpleNamespace(training=training, run=SimpleNamespace(merge_adapter=False), path=Path("x.yaml"))
    lines = train._summary(recipe, tmp_path, 29.4).splitlines()
    assert lines[-1] == f"demo: {change} in 29 s, {tmp_path}"
    assert lines[0].startswith(first_line)
