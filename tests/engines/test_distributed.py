"""Strategies in two processes on the CPU: the step of one process, a model that loads, and a run that goes on."""

from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("algorithm", ["gbpo", "grpo"])
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2", "zero2", "zero3"])
def test_same_step_as_one_process(check_step, strategy, algorithm):
    check_step(strategy, algorithm)


@pytest.mark.parametrize("strategy", ["zero2", "zero3"])
def test_sampling_ahead(check_ahead, strategy):
    """FSDP2 and DDP are tested in the other suite."""
    check_ahead(strategy)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2", "zero2", "zero3", "zero3_offload"])
def test_save_and_resume(check_resume, strategy):
    check_resume(strategy)


def test_vllm_gets_a_sharded_adapter(check_sharded_adapter):
    """FSDP2 is tested in the other suite."""
    check_sharded_adapter("zero3")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("strategy", ["fsdp2", "zero2", "zero3"])
def test_a_step_that_is_not_finite_is_skipped_on_both(in_two_processes, random_model, tmp_path, strategy, precision):
    """The loss is NaN on the second rank only."""
    script = ROOT / "tests" / "trainer" / "guards" / "finite_step.py"
    done = in_two_processes(strategy, script, random_model, tmp_path, precision)
    for rank in (0, 1):
        after = torch.load(tmp_path / f"{rank}.pt")
        assert after["changed"] == [True, False, True]
        assert after["weights"].isfinite().all()
    assert "Optimiser step 2, rank 1: log-probabilities not finite" in done.stderr
