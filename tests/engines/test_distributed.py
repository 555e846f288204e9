"""Strategies in two processes on the CPU: the step of one process, a model that loads, and a run that goes on."""

import pytest


@pytest.mark.parametrize("algorithm", ["gbpo", "grpo"])
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2", "zero2", "zero3"])
def test_same_step_as_one_process(check_step, strategy, algorithm):
    check_step(strategy, algorithm)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2", "zero2", "zero3", "zero3_offload"])
def test_save_and_resume(check_resume, strategy):
    check_resume(strategy)
