"""DDP and FSDP2 in two processes on the CPU: the step of one process, a model that loads, and a run that goes on.

DeepSpeed's strategies are under tests/engines.
"""

import pytest


@pytest.mark.parametrize(("strategy", "algorithm"), [("ddp", "grpo"), ("fsdp2", "gbpo"), ("fsdp2", "grpo")])
def test_same_step_as_one_process(check_step, strategy, algorithm):
    check_step(strategy, algorithm)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_save_and_resume(check_resume, strategy):
    check_resume(strategy)
