"""The check that vLLM has the trained weights, with a fake engine; tests/engines/test_vllm.py runs vLLM itself."""

import math
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.distributed import DistributedBackend
from trl.generation import vllm_generation

from gbpo.shared.stopping import TrainingStopped
from gbpo.trainer.guards.vllm_weights import WeightCheck, engine_dtype


def logged(trainer, name):
    return [row[name] for row in trainer.state.log_history if name in row]


# --- dtype


def test_engine_has_the_dtype_of_the_trainer(make_with_vllm, engine):
    make_with_vllm(model_init_kwargs={"dtype": "float32"})
    assert engine.started["dtype"] == "float32"
    make_with_vllm(model_init_kwargs={"dtype": "bfloat16"})
    assert engine.started["dtype"] == "bfloat16"
    assert vllm_generation.LLM is engine, "the constructor restores TRL's module"


def test_mixed_precision_names_the_dtype():
    assert engine_dtype(torch.float32, "bf16") == torch.bfloat16
    assert engine_dtype(torch.float32, "fp16") == torch.float16
    assert engine_dtype(torch.float32, "no") == torch.float32


def test_fsdp1_cannot_send_weights(make_with_vllm, monkeypatch):
    fsdp1 = {"zero_stage": 0, "fsdp_version": 1}
    monkeypatch.setattr(DistributedBackend, "__init__", lambda self, accelerator: vars(self).update(fsdp1))
    with pytest.raises(ValueError, match="fsdp_version=1 with use_vllm=True: .* Write fsdp_version: 2"):
        make_with_vllm()


# --- whether the engine has the weights


@pytest.mark.parametrize("correction", [True, False])
def test_synced_engine_is_proven(make_with_vllm, correction):
    trainer = make_with_vllm(vllm_importance_sampling_correction=correction, temperature=0.7)
    trainer.train()
    assert trainer.weight_check.proven
    gaps, movements = logged(trainer, "gbpo/vllm_logp_gap"), logged(trainer, "gbpo/vllm_logp_movement")
    assert len(gaps) == len(movements) == 2, "the weights are proven after two syncs, then the check ends"
    assert max(gaps) < 1e-5 < 1e-3 < movements[1]


@pytest.mark.parametrize("algorithm", ["gbpo", "grpo"])
def test_weights_that_do_not_arrive_end_the_run(make_with_vllm, engine, monkeypatch, algorithm):
    monkeypatch.setattr(engine, "receives_weights", False)
    trainer = make_with_vllm(algorithm, max_steps=9)
    with pytest.raises(
        TrainingStopped, match="does not sample from the policy that is trained: at step 1 .* use_vllm: false"
    ):
        trainer.train()


def test_engine_of_another_model_ends_the_run_at_once(make_with_vllm, engine, monkeypatch):
    monkeypatch.setattr(engine, "noise", 0.05)
    with pytest.raises(TrainingStopped, match="at step 0 .* torch.float32 explains at most 0.01"):
        make_with_vllm().train()


def test_with_a_biased_sampler_only_a_growing_gap_counts(make_with_vllm, engine, monkeypatch):
    monkeypatch.setattr(engine, "noise", 0.05)
    trainer = make_with_vllm(top_p=0.9, learning_rate=1e-6)
    trainer.train()
    assert not trainer.weight_check.proven
    monkeypatch.setattr(engine, "noise", 0.001)
    monkeypatch.setattr(engine, "receives_weights", False)
    with pytest.raises(TrainingStopped, match="at step 1"):
        make_with_vllm(top_p=0.9).train()


@pytest.mark.parametrize(
    ("dtype", "gaps_and_movements", "alive", "proven"),
    [
        (torch.float32, [(0.0, 0.0), (0.0, 0.02)], True, True),
        (
            torch.float32,
            [(1e-5, 0.0), (0.008, 0.009)],
            False,
            False,
        ),  # as large as the movement
        (torch.float32, [(1e-5, 0.0), (2e-4, 2e-4)], True, False),  # the update is too small for a decision
        (torch.float32, [(1e-6, 0.0), (5e-3, 0.06)], False, False),  # weights that arrive rounded to bfloat16
        (torch.float32, [(1e-6, 0.0), (6e-4, 0.06)], True, False),  # more rounding than at first: no decision yet
        (torch.float32, [(0.02, 0.0)], False, False),  # a bfloat16 engine
        (torch.bfloat16, [(9e-4, 0.0), (9e-4, 0.2)], True, True),  # measured with vLLM
        (torch.bfloat16, [(9e-4, 0.0), (0.02, 0.02), (0.2, 0.2)], False, False),
        (torch.bfloat16, [(0.04, 0.0), (0.05, 0.1)], True, False),
        (torch.bfloat16, [(0.04, 0.0), (0.05, 0.3)], True, True),
        (torch.float32, [(0.0, 0.0), (math.nan, 0.02)], False, False),
    ],
)
def test_decision(dtype, gaps_and_movements, alive, proven):
    check = WeightCheck(None, dtype, biased=False, fix="", first_gap=gaps_and_movements[0][0])
    verdicts = [check.judge(*pair) for pair in gaps_and_movements]
    assert all(verdicts) == alive
    assert check.proven == proven


@pytest.mark.parametrize(
    ("dtype", "gaps_and_movements", "alive", "proven"),
    [
        (torch.bfloat16, [(1e-7, 0.0), (0.01, 0.02), (0.01, 0.04)], True, False),  # rounding of the merged weights
        (torch.bfloat16, [(1e-7, 0.0), (0.008, 0.06)], True, True),
        (torch.bfloat16, [(1e-7, 0.0), (0.06, 0.06)], False, False),  # as large as the movement
        (torch.float32, [(1e-7, 0.0), (0.001, 0.002)], False, False),  # float32 has no such rounding
    ],
)
def test_decision_if_the_adapter_is_merged(dtype, gaps_and_movements, alive, proven):
    check = WeightCheck(None, dtype, biased=False, fix="", merges=True, first_gap=gaps_and_movements[0][0])
    verdicts = [check.judge(*pair) for pair in gaps_and_movements]
    assert all(verdicts) == alive
    assert check.proven == proven


def test_the_rounding_of_merged_weights_does_not_end_the_run(make_with_vllm, random_model, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(random_model)
    with torch.no_grad():
        model.model.norm.weight.mul_(20)  # small changes move the policy as much as in a large, trained model
    model.save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(random_model).save_pretrained(tmp_path / "model")
    lora = LoraConfig(r=32, lora_alpha=64, target_modules="all-linear")
    trainer = make_with_vllm(
        model=str(tmp_path / "model"),
        trainer={"peft_config": lora},
        model_init_kwargs={"dtype": "bfloat16"},
        learning_rate=1e-5,
        max_steps=4,
    )
    trainer.train()
    assert max(logged(trainer, "gbpo/vllm_logp_gap")) > 0.005 > 100 * trainer.weight_check.first_gap


def test_weights_are_compared_again_after_an_outage(make_with_vllm):
    trainer = make_with_vllm(max_steps=2)
    trainer.train()
    assert trainer.weight_check.proven
    trainer.args.vllm_mode = "server"
    trainer.vllm_generation.vllm_client = SimpleNamespace(was_gone=lambda: True)
    batch = trainer.weight_check.first_rows
    behind = batch["sampling_per_token_logps"] + 0.05  # as a server with the first weights would report
    with pytest.raises(TrainingStopped, match="weight sync does not reach the engine"):
        trainer._check_engine(trainer.weight_check, {**batch, "sampling_per_token_logps": behind})
