"""Every benchmark runs and writes the documented format. No times are tested."""

import json
import math

import pytest
import torch

from evals.bench import memory
from evals.bench.__main__ import BENCHES, main
from evals.bench.end2end import _reached
from evals.bench.measuring import Measurement, bench_result, write
from evals.bench.timed import Batch, Case, TimedGBPO, TimedGRPO, bench_model, make_trainer
from evals.bench.train import _Contender, _distance

MACHINE = {"command", "created", "git_revision", "hardware", "threads", "versions"}
TRAIN = {
    *("case", "ours_seconds", "trl_seconds", "speedup", "gradient_error", "limit_ratio", "memory_ratio"),
    *("limit_seconds", "spread", "repeats", "rows", "useful_rows", "tokens", "useful_tokens"),
}


@pytest.fixture
def quick(tmp_path, capsys, monkeypatch):
    """`quick(bench)` → its JSON and its printed text. The number of torch threads is restored."""
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    threads = torch.get_num_threads()

    def run(bench):
        file = tmp_path / f"{bench}.json"
        main([bench, "--quick", "--repeats", "1", "--json", str(file)])
        return json.loads(file.read_text()), capsys.readouterr().out

    yield run
    torch.set_num_threads(threads)


def check_machine(found, printed):
    assert found.keys() >= MACHINE
    assert found["command"].startswith("python -m evals.bench ")
    assert f"{found['threads']} torch threads" in printed
    assert found["hardware"]["cpu"] in printed
    assert f"torch {torch.__version__}" in printed


@pytest.mark.parametrize("repeats", ["0", "-1"])
def test_too_few_repeats_are_refused(repeats, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["loss", "--repeats", repeats])
    assert caught.value.code == 2 and f"--repeats {repeats} would measure nothing" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("bench", [bench for bench in BENCHES if bench not in ("train", "generate")])
def test_a_benchmark_runs_and_describes_its_machine(bench, quick):
    found, printed = quick(bench)
    check_machine(found, printed)
    assert found["measurements"]
    for measured in found["measurements"]:
        assert measured.keys() == {"name", "median", "min", "max", "unit", "repeats"}
        assert 0 < measured["min"] <= measured["median"] <= measured["max"] < math.inf, measured
        assert measured["name"] in printed


@pytest.mark.slow
def test_generate_reports_methods_that_are_not_available(quick):
    found, printed = quick("generate")
    check_machine(found, printed)
    assert found["measurements"][0]["name"] == "transformers, padded batch"
    assert found["measurements"][0]["median"] > 0
    assert any("vLLM" in note for note in found["notes"])


@pytest.mark.slow
def test_train_measures_cases_with_equal_gradients(quick):
    found, printed = quick("train")
    assert isinstance(found, list)
    for case in found:
        check_machine(case, printed)
        assert case.keys() >= TRAIN
        assert case["gradient_error"] <= 1e-5
        assert case["speedup"] == pytest.approx(case["trl_seconds"] / case["ours_seconds"])
        assert case["memory_ratio"] > 0
        assert (case["rows"], case["useful_rows"]) == (16, 8)
        assert case["useful_tokens"] < case["tokens"]


@pytest.mark.sweep
@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo", "bnpo"])
def test_gradients_are_equal_for_every_loss_type(loss_type, tmp_path, monkeypatch):
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    batch = Batch(Case("skewed", 0.5, completions=16, mean_length=12, loss_type=loss_type))
    ours, trl = (
        _Contender(make_trainer(kind, bench_model(quick=True), batch, str(tmp_path))).step().gradient
        for kind in (TimedGBPO, TimedGRPO)
    )
    assert trl.norm() > 1e-3
    assert _distance(ours, trl) <= 1e-5
    assert _distance(ours, -trl) == pytest.approx(2.0)


def test_a_case_has_its_lengths_and_zero_signal_groups():
    batch = Batch(Case("skewed", 0.8))
    lengths = [len(ids) for ids in batch.completion_ids]
    assert (round(sum(lengths) / 64), max(lengths)) == (115, 354)
    assert len(batch.useful) == 12  # 3 of 16 groups of four
    uniform = Batch(Case("uniform", 0.0))
    assert {len(ids) for ids in uniform.completion_ids} == {115}
    assert len({len(ids) for ids in uniform.prompt_ids}) == 1
    assert len(uniform.useful) == 64


def test_the_memory_peak_is_measured():
    class Holds:
        def train(self):
            torch.ones(2**24).sum()  # 64 MiB

    blocks = [torch.ones(2**12) for _ in range(2**13)]  # 128 MiB on the heap, which stay resident after they are freed
    del blocks
    peak = memory._peak_of(Holds())
    assert 2**26 <= peak + 2**21 < 2**26 + 2**24


def test_the_reward_is_reached_when_the_window_mean_exceeds_it(tmp_path):
    file = tmp_path / "metrics.jsonl"
    assert _reached(file, 4, 0.5) is None
    rows = [{"step": 2 * i, "elapsed": float(i), "reward": reward} for i, reward in enumerate([0.9, 0.3, 0.6, 0.8], 1)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 10, "rew')
    # means of two logs: 0.6 (steps 2, 4), 0.45, 0.7
    assert _reached(file, 4, 0.5)["step"] == 4
    assert _reached(file, 4, 0.65)["step"] == 8
    assert _reached(file, 4, 0.75) is None


def test_a_reward_that_was_never_reached_is_null(tmp_path):
    found = bench_result([Measurement("GBPO", [math.inf, 2.0, math.inf], "s")])
    assert "inf" in found.rows[0][1]
    write(tmp_path / "found.json", found.results, {})
    (measured,) = json.loads((tmp_path / "found.json").read_text())["measurements"]
    assert (measured["median"], measured["min"]) == (None, 2.0)
