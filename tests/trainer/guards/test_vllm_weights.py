"""The check that vLLM has the trained weights, with a fake engine; tests/engines/test_vllm.py runs vLLM itself."""

import math
from types import SimpleNamespace

import pytest
import torch
from trl.generation import vllm_generation

from gbpo.shared.stopping import TrainingStopped
from gbpo.trainer.guards.vllm_weights import WeightCheck, correction_fraction, engine_dtype, masked_mean


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


# --- importance sampling correction


MODES = ["token_mask", "token_truncate", "sequence_mask", "sequence_truncate"]


def corrected_loss(logps, old_logps, sampling_logps, targets, advantages, mode, low, high):
    """The token mean of w·|A|·|ρ - ρ*| in plain Python, for completions of equal length.

    Returns:
        The loss, its gradient by log-prob, and the fraction of the importance ratios outside [low, high].
    """
    rows, tokens = logps.shape
    total, gradient, outside, weights = 0.0, torch.zeros_like(logps), [], {}
    for i in range(rows):
        ratios = [math.exp(old_logps[i, t] - sampling_logps[i, t]) for t in range(tokens)]
        if mode.startswith("sequence"):
            ratios = [math.prod(ratios)] * tokens
        for t, ratio in enumerate(ratios):
            out = not low <= ratio <= high
            outside.append(out)
            weights[i, t] = (0.0 if out else ratio) if mode.endswith("mask") else min(max(ratio, low), high)
            rho = math.exp(logps[i, t] - old_logps[i, t])
            scale = weights[i, t] * abs(advantages[i])
            total += scale * abs(rho - targets[i])
            gradient[i, t] = scale * math.copysign(1, rho - targets[i]) * rho
    return total / (rows * tokens), gradient / (rows * tokens), sum(outside) / len(outside)


@pytest.mark.parametrize("mode", MODES)
def test_bounded_loss_with_the_correction(make_with_vllm, engine, monkeypatch, gradient, distance, mode):
    """Loss and gradient of the engine's samples equal those of the formula in plain Python."""
    monkeypatch.setattr(engine, "noise", 0.5)
    low, high = 0.7, 1.6
    trainer = make_with_vllm(
        vllm_importance_sampling_mode=mode,
        vllm_importance_sampling_clip_min=low,
        vllm_importance_sampling_clip_max=high,
        top_p=0.99,  # ignored by the fake engine; without it the noise of the log-probs would end the run
    )
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    batch = trainer._generate_and_score_completions([{"prompt": f"{i // 4}+1="} for i in range(8)])
    assert batch["advantages"].abs().min() < batch["advantages"].abs().max()
    with torch.no_grad():  # like an optimiser step, so that ratios lie on both sides of their targets
        for p in trainer.model.parameters():
            p += 0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)) * p.std()
    loss, actual = gradient(trainer, batch)

    trainer.model.zero_grad()
    logps = trainer._get_per_token_logps_and_entropies(
        trainer.model,
        torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1),
        torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1),
        6,
    )[0]
    expected, by_logps, outside = corrected_loss(
        logps.detach().double(),
        batch["old_per_token_logps"].double(),
        batch["sampling_per_token_logps"].double(),
        batch["target_ratio"].tolist(),
        batch["advantages"].tolist(),
        mode,
        low,
        high,
    )
    logps.backward(by_logps.float())
    reference = torch.cat([p.grad.flatten() for p in trainer.model.parameters()])
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert distance(actual, reference) < 1e-5
    assert 0.1 < outside < 0.9
    name = "masked" if mode.endswith("mask") else "truncated"
    assert trainer._metrics["train"][f"gbpo/vllm_{name}_fraction"] == [pytest.approx(outside)]


@pytest.mark.parametrize("mode", MODES)
def test_the_fraction_outside_the_clip_range_counts_only_tokens_that_the_policy_sampled(make_with_vllm, mode):
    """Four rows: both tokens inside; one outside; the same token written by a tool; all tokens written by a tool."""
    trainer = make_with_vllm(
        "grpo",
        vllm_importance_sampling_mode=mode,
        vllm_importance_sampling_clip_min=None,
        vllm_importance_sampling_clip_max=2.0,
    )
    ones = torch.ones(4, 2, dtype=torch.long)
    output = {
        "old_per_token_logps": torch.tensor([[0.1, 0.1], [1.0, 0.1], [1.0, 0.1], [9.0, 9.0]]),
        "sampling_per_token_logps": torch.tensor([[0.0, math.nan], [0.0, math.nan], [0.0, 0.0], [0.0, 0.0]]),
        "completion_mask": ones,
        "tool_mask": torch.tensor([[1, 1], [1, 1], [0, 1], [0, 0]]),
    }
    found = correction_fraction(output, ones * output["tool_mask"], mode, None, 2.0)
    fraction = 1 / 5 if mode.startswith("token") else 1 / 3
    assert masked_mean(*found, trainer.accelerator) == pytest.approx(fraction)


def test_weights_are_compared_again_after_an_outage(make_with_vllm):
    trainer = make_with_vllm(max_steps=2)
    trainer.train()
    assert trainer.weight_check.proven
    trainer.args.vllm_mode = "server"
    trainer.vllm_generation.vllm_client = SimpleNamespace(was_gone=lambda: True)
    batch = trainer.weight_check.first_rows
    behind = batch["sampling_per_token_logps"] + 0.05  # as a server with the first weights would report
    now = trainer._policy_logps(batch)
    with pytest.raises(TrainingStopped, match="weight sync does not reach the engine"):
        trainer._check_engine({**batch, "old_per_token_logps": now, "sampling_per_token_logps": behind})
