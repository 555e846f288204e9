"""vLLM gets the weights with the adapter, and the trainer's own weights keep every bit."""

from copy import deepcopy

import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer

from gbpo.trainer.sampling.merged_weights import merged_weights

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
    expected = deepcopy(model).float().merge_and_unload()
    for name, weight in engine.named_parameters():
        exact = expected.get_parameter(name)
        spacing = torch.finfo(weight.dtype).eps * exact.abs() if dtype == "bfloat16" else 0.0
        assert ((weight - exact).abs() <= spacing).all(), name  # one of its two neighbours


@pytest.fixture
def small_update(make_with_vllm):
    """`small_update(**config)`: a trainer, a weight W of its model, and δ, which bfloat16 mostly rounds away."""

    def make(**config):
        lora = LoraConfig(r=2, lora_alpha=2, target_modules=["down_proj"])
        trainer = make_with_vllm(trainer={"peft_config": lora}, **config)
        layer = trainer.model.base_model.model.model.layers[0].mlp.down_proj
        with torch.no_grad():
            layer.lora_B["default"].weight.normal_(0.0, 1e-4, generator=torch.Generator().manual_seed(0))
        weight, delta = layer.base_layer.weight.bfloat16().float(), layer.get_delta_weight("default").detach()
        nearest = (weight + delta).bfloat16().float() - weight
        assert (nearest * delta).sum() < 0.3 * delta.square().sum()
        return trainer, weight, delta

    return make


@pytest.mark.parametrize("precision", [{"model_init_kwargs": {"dtype": "bfloat16"}}, {"bf16": True}])
def test_small_updates_arrive_in_bfloat16(small_update, precision):
    trainer, weight, delta = small_update(**precision)
    change = torch.zeros_like(delta)
    for step in range(400):
        trainer.state.global_step = step
        trainer.vllm_generation.sync_weights()
        arrived = trainer.vllm_generation.llm.model.model.layers[0].mlp.down_proj.weight
        assert arrived.dtype == torch.bfloat16
        change += (arrived.float() - weight) / 400
    # a standard deviation of about 0.01 is left after 400 syncs
    assert ((change * delta).sum() / delta.square().sum()).item() == pytest.approx(1.0, abs=0.05)


def test_the_same_step_gives_the_same_weights(small_update):
    trainer, *_ = small_update(model_init_kwargs={"dtype": "bfloat16"})
    found = []
    for step in (3, 4, 3):  # a resumed run sends the weights of a step again
        trainer.state.global_step = step
        trainer.vllm_generation.sync_weights()
        found.append(trainer.vllm_generation.llm.model.model.layers[0].mlp.down_proj.weight.clone())
    assert torch.equal(found[0], found[2]) and not torch.equal(found[0], found[1])


def test_tied_weights_get_both_adapters(make_with_vllm):
    trainer = make_with_vllm()
    embedding = trainer.model.get_input_embeddings()
    assert trainer.model.lm_head.weight is embedding.weight
    lora = LoraConfig(r=2, target_modules=["embed_tokens", "lm_head"], init_lora_weights=False)
    model = get_peft_model(trainer.model, lora)
    layers = [part for part in model.modules() if isinstance(part, LoraLayer)]
    expected = embedding.weight + sum(layer.get_delta_weight("default") for layer in layers)
    weights = [("model.embed_tokens.weight", embedding.weight.data)]
    ((_, merged),) = merged_weights(model, weights, torch.float32, torch.Generator())
    assert len(layers) == 2
    torch.testing.assert_close(merged, expected.detach())
