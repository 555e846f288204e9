"""vLLM gets the weights with the adapter, and the trainer's own weights keep every bit."""

from copy import deepcopy

import pytest
import torch
from peft import IA3Config, LoraConfig

SYNCS = 20


def randomised(model, generator):
    """Give every adapter weight a new value, as if the policy had been trained."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(1.0, 0.3, generator=generator)
    return model


ADAPTERS = {
    "LoRA": LoraConfig(r=2, lora_alpha=1, target_modules="all-linear"),
    "LoRA with biases": LoraConfig(r=2, lora_alpha=1, lora_bias=True, target_modules=["q_proj"]),
    "DoRA": LoraConfig(r=2, lora_alpha=1, target_modules="all-linear", use_dora=True),
    "whole modules": LoraConfig(r=2, lora_alpha=1, target_modules=["q_proj"], modules_to_save=["norm"]),
    "IA3": IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
}


@pytest.mark.parametrize("config", ADAPTERS.values(), ids=ADAPTERS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_sync_of_an_adapter_changes_no_weight(make_with_vllm, dtype, config):
    trainer = make_with_vllm(trainer={"peft_config": config}, model_init_kwargs={"dtype": dtype})
    model, generator = trainer.model, torch.Generator().manual_seed(0)
    engine = trainer.vllm_generation.llm.model
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    for _ in range(SYNCS):
        randomised(model, generator)
        trainer.vllm_generation.sync_weights()
    changed = [name for name, before in frozen.items() if not torch.equal(model.get_parameter(name), before)]
    assert not changed
    expected = deepcopy(model).merge_and_unload()
    for name, weight in engine.named_parameters():
        torch.testing.assert_close(weight, expected.get_parameter(name), rtol=0, atol=0, msg=name)
