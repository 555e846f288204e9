"""FSDP2 in two processes on the CPU: the same step as in one process, a loadable model, a resumed run, an adapter.

DDP is tested in test_step.py, test_killed.py and test_run.py; DeepSpeed, and the other combinations, in tests/engines.
"""


def test_same_step_as_one_process(check_step):
    check_step("fsdp2", "gbpo")


def test_save_and_resume(check_resume):
    check_resume("fsdp2")


def test_sampling_ahead(check_ahead):
    check_ahead("fsdp2")


def test_vllm_gets_a_sharded_adapter(check_sharded_adapter):
    check_sharded_adapter("fsdp2")
