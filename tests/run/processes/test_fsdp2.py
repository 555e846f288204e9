"""FSDP2 in two processes on the CPU: the same step as in one process, a loadable model, a resumed run, an adapter.

DDP is tested in test_step.py, test_killed.py and test_run.py; DeepSpeed, and the other combinations, in tests/engines.
"""

from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

SHARDED_ADAPTER = Path(__file__).parents[2] / "trainer" / "sampling" / "sharded_adapter.py"


def test_same_step_as_one_process(check_step):
    check_step("fsdp2", "gbpo")


def test_save_and_resume(check_resume):
    check_resume("fsdp2")


def test_sampling_ahead(check_ahead):
    check_ahead("fsdp2")


def test_vllm_gets_a_sharded_adapter(in_two_processes, random_model, tmp_path):
    in_two_processes("fsdp2", SHARDED_ADAPTER, random_model, tmp_path)
    base = AutoModelForCausalLM.from_pretrained(random_model, dtype=torch.bfloat16).float()
    before = {name: weight.clone() for name, weight in base.named_parameters()}
    expected = PeftModel.from_pretrained(base, str(tmp_path / "adapter")).merge_and_unload()
    seen = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    for one in seen:
        assert one["sharded"] and not one["changed"]
        for name, exact in expected.named_parameters():
            spacing = torch.finfo(torch.bfloat16).eps * exact.abs()
            assert ((one["engine"][name] - exact).abs() <= spacing).all(), name
            assert torch.equal(one["engine"][name], seen[0]["engine"][name]), name
    moved = [name for name, exact in expected.named_parameters() if not torch.equal(exact, before[name])]
    assert len(moved) > len(before) / 2
