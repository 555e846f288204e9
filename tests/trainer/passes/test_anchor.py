"""The policy that the ratio starts from, and vLLM's importance ratio, with a fake engine of noisy log-probs."""

import math
from collections import Counter

import pytest
import torch
from trl import GRPOConfig, GRPOTrainer

from gbpo import GBPOConfig
from gbpo.trainer.base import BaseTrainer
from gbpo.trainer.config import BaseConfig
from gbpo.trainer.guards.sampler_gap import sampler_gap_metrics
from gbpo.trainer.passes.anchor import Anchor

MODES = ["token_mask", "token_truncate", "sequence_mask", "sequence_truncate"]
LOW, HIGH = 0.7, 1.6
LIMITS = {"vllm_importance_sampling_clip_min": LOW, "vllm_importance_sampling_clip_max": HIGH}


def weights_of(trainer_logps, sampler_logps, mode):
    """The importance weight of each token and the share of ratios outside the limits, in plain Python."""
    rows, tokens = trainer_logps.shape
    weights, outside = torch.zeros(rows, tokens, dtype=torch.double), []
    for i in range(rows):
        ratios = [math.exp(trainer_logps[i, t] - sampler_logps[i, t]) for t in range(tokens)]
        if mode.startswith("sequence"):
            ratios = [math.prod(ratios)] * tokens
        for t, ratio in enumerate(ratios):
            out = not LOW <= ratio <= HIGH
            outside.append(out)
            weights[i, t] = (0.0 if out else ratio) if mode.endswith("mask") else min(max(ratio, LOW), HIGH)
    return weights, sum(outside) / len(outside)


@pytest.fixture
def generation(engine, monkeypatch):
    """`generation(trainer)`: completions that the engine sampled, with old log-probs; the weights then change."""
    monkeypatch.setattr(engine, "noise", 0.5)

    def generate(trainer):
        trainer.model.train()
        trainer.current_gradient_accumulation_steps = 1
        batch = trainer._generate_and_score_completions([{"prompt": f"{i // 4}+1="} for i in range(8)])
        assert batch["advantages"].abs().min() < batch["advantages"].abs().max()
        batch["old_per_token_logps"] = trainer._policy_logps(batch)
        with torch.no_grad():  # like an optimiser step, so that ratios lie on both sides of their targets
            for p in trainer.model.parameters():
                p += 0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)) * p.std()
        return batch

    return generate


def scored(trainer, batch):
    """Log-probs with a gradient, from TRL's own method on padded rows."""
    return GRPOTrainer._get_per_token_logps_and_entropies(
        trainer,
        trainer.model,
        torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1),
        torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1),
        batch["completion_ids"].size(1),
    )[0]


def gradient_by(trainer, logps, by_logps):
    trainer.model.zero_grad()
    logps.backward(by_logps.to(logps.dtype))
    return torch.cat([p.grad.flatten() for p in trainer.model.parameters()])


BIASED = {"top_p": 0.99}  # ignored by the fake engine; without it the noise of the log-probs would end the run


def bounded_loss(logps, old, batch, weights):
    """Value and gradient by log-prob of the token mean of w · |A| · |ρ - ρ*|."""
    scale = weights * batch["advantages"].abs().unsqueeze(1).double() / logps.numel()
    ratio = (logps.detach().double() - old.double()).exp()
    difference = ratio - batch["target_ratio"].unsqueeze(1).double()
    return (scale * difference.abs()).sum().item(), scale * difference.sign() * ratio


def clipped_loss(logps, old, batch, weights):
    """Value and gradient by log-prob of the token mean of w · max(-ρA, -clip(ρ)A) with the bounds 0.8 and 1.2."""
    advantages = batch["advantages"].unsqueeze(1).double()
    ratio = (logps.detach().double() - old.double()).exp()
    clipped = ratio.clamp(0.8, 1.2)
    takes_clipped = clipped * advantages < ratio * advantages
    loss = -torch.where(takes_clipped, clipped, ratio) * advantages
    by_logps = torch.where(takes_clipped, 0.0, -ratio * advantages)
    return (weights * loss).mean().item(), weights * by_logps / logps.numel()


LOSSES = {"gbpo": bounded_loss, "grpo": clipped_loss}


@pytest.mark.parametrize("algorithm", LOSSES)
@pytest.mark.parametrize("mode", MODES)
def test_the_correction_is_the_formula(make_with_vllm, generation, gradient, distance, algorithm, mode):
    """Loss and gradient equal those of the formula in plain Python, and the metrics count what it masks."""
    trainer = make_with_vllm(algorithm, vllm_importance_sampling_mode=mode, epsilon=0.2, **LIMITS, **BIASED)
    batch = generation(trainer)
    old, sampler = batch["old_per_token_logps"], batch["sampling_per_token_logps"]
    loss, actual = gradient(trainer, batch)

    weights, outside = weights_of(old.double(), sampler.double(), mode)
    logps = scored(trainer, batch)
    expected, by_logps = LOSSES[algorithm](logps, old, batch, weights)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert distance(actual, gradient_by(trainer, logps, by_logps)) < 1e-5
    assert 0.1 < outside < 0.9

    found = sampler_gap_metrics([(old, sampler, batch["completion_mask"])], trainer.anchor, trainer.accelerator)
    per_ratio = weights if mode.startswith("token") else weights[:, :1]
    assert found == {
        "sampling/sampling_logp_difference/mean": pytest.approx((old - sampler).abs().mean().item()),
        "sampling/sampling_logp_difference/max": pytest.approx((old - sampler).abs().max().item()),
        "sampling/importance_sampling_ratio/min": pytest.approx(per_ratio.min().item()),
        "sampling/importance_sampling_ratio/mean": pytest.approx(per_ratio.mean().item()),
        "sampling/importance_sampling_ratio/max": pytest.approx(per_ratio.max().item()),
        f"gbpo/vllm_{'masked' if mode.endswith('mask') else 'truncated'}_fraction": pytest.approx(outside),
    }


@pytest.mark.parametrize("algorithm", LOSSES)
def test_with_the_sampler_as_anchor_the_ratio_is_that_to_the_reported_log_probs(
    make_with_vllm, generation, gradient, distance, algorithm
):
    trainer = make_with_vllm(algorithm, config_class=SAMPLER[algorithm], ratio_anchor="sampler", epsilon=0.2, **BIASED)
    batch = generation(trainer)
    unknown = batch["sampling_per_token_logps"].clone()
    unknown[2, 1] = math.nan  # vLLM could not score this token: its ratio is 1, and it has the gradient of that ratio
    del batch["old_per_token_logps"]
    loss, actual = gradient(trainer, batch | {"sampling_per_token_logps": unknown})

    logps = scored(trainer, batch)
    old = torch.where(unknown.isnan(), logps.detach(), unknown)
    expected, by_logps = LOSSES[algorithm](logps, old, batch, torch.ones_like(old).double())
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert distance(actual, gradient_by(trainer, logps, by_logps)) < 1e-5


SAMPLER = {"gbpo": GBPOConfig, "grpo": BaseConfig}
STEPS = {"steps_per_generation": 4, "gradient_accumulation_steps": 2, "num_iterations": 2, "max_steps": 8}


class Watched:
    """Counts the forward passes with and without gradients, and keeps the smallest and largest ratio of each step."""

    def __init__(self, trainer, monkeypatch):
        self.passes, self.ratios = Counter(), []
        trainer.model.register_forward_hook(
            lambda *_: self.passes.update(["loss" if torch.is_grad_enabled() else "old"]),
        )
        log_ratios = trainer._log_ratios

        def watch():
            values = torch.cat([ratio[one.policy_mask.bool()] for one, _, ratio in trainer._ran])
            self.ratios.append((values.min().item(), values.max().item()))
            log_ratios()

        monkeypatch.setattr(trainer, "_log_ratios", watch)


@pytest.mark.sweep
@pytest.mark.parametrize("algorithm", SAMPLER)
@pytest.mark.parametrize("anchor", ["trainer", "sampler"])
def test_ratios_of_the_first_step_and_passes_of_a_generation(make_with_vllm, engine, monkeypatch, algorithm, anchor):
    """In bfloat16, with two optimiser steps in each of two iterations on a generation of 4 micro-batches."""
    monkeypatch.setattr(engine, "noise", 0.02)
    trainer = make_with_vllm(
        algorithm,
        config_class=SAMPLER[algorithm],
        ratio_anchor=anchor,
        exact_speedups=["trim_padding", "reuse_first_pass"],  # one pass for each micro-batch
        bf16=True,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        **STEPS,
        **BIASED,
    )
    trainer.weight_check = None
    seen = Watched(trainer, monkeypatch)
    trainer.train()
    first_steps = seen.ratios[::4]  # two generations with 4 steps each
    assert len(seen.ratios) == 8
    later = [value for i, pair in enumerate(seen.ratios) if i % 4 for value in pair]
    assert all(value != 1.0 for value in later)
    if anchor == "trainer":
        assert first_steps == [(1.0, 1.0)] * 2
        assert seen.passes == {"loss": 16, "old": 4}  # TRL runs 8 old passes: all micro-batches of both generations
    else:
        assert all(low < 0.99 and high > 1.01 for low, high in first_steps)
        assert seen.passes == {"loss": 16}


@pytest.mark.parametrize("algorithm", SAMPLER)
def test_one_step_per_generation_runs_no_pass_for_old_log_probs(make_with_vllm, engine, monkeypatch, algorithm):
    """TRL runs one for its correction."""
    monkeypatch.setattr(engine, "noise", 0.02)
    trainer = make_with_vllm(algorithm, vllm_importance_sampling_mode="token_mask", **BIASED)
    trainer.weight_check = None
    seen = Watched(trainer, monkeypatch)
    trainer.train()
    assert "old" not in seen.passes and seen.passes["loss"] >= 3
    assert seen.ratios == [(1.0, 1.0)] * 3
    gaps = [row["sampling/sampling_logp_difference/mean"] for row in trainer.state.log_history if "reward" in row]
    assert len(gaps) == 3 and all(0.01 < gap < 0.03 for gap in gaps), "mean |noise| is 0.8 · 0.02"


def test_metrics_of_the_gap_count_the_first_step_only(make_with_vllm, engine, monkeypatch):
    """Later steps compare a policy that has moved."""
    monkeypatch.setattr(engine, "noise", 0.02)
    trainer = make_with_vllm(ratio_anchor="sampler", learning_rate=1e-2, logging_steps=1, **STEPS, **BIASED)
    trainer.train()
    logs = [row for row in trainer.state.log_history if "loss" in row]
    has = ["sampling/sampling_logp_difference/mean" in row for row in logs]
    assert has == [True, False, False, False] * 2
    assert all(row["sampling/sampling_logp_difference/mean"] < 0.03 for row in logs[::4])


@pytest.mark.sweep
@pytest.mark.parametrize("mode", MODES)
def test_correction_equals_trls(make_with_vllm, engine, monkeypatch, mode):
    """TRL's own correction, from old log-probs that it computes itself, changes the weights in the same way."""
    monkeypatch.setattr(engine, "noise", 0.3)
    config = {"vllm_importance_sampling_mode": mode, "steps_per_generation": 2, "gradient_accumulation_steps": 1}
    config |= {"max_steps": 4, "learning_rate": 1e-2, "optim": "sgd", "max_grad_norm": 0.0, **LIMITS, **BIASED}
    weights, samples = [], []
    for base in (BaseTrainer, TRLWithSeeds):
        trainer = make_with_vllm("grpo", base=base, **config)
        torch.manual_seed(0)  # TRL shuffles the rows of a generation
        trainer.train()
        weights.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
        samples.append(engine.sampled)
    start = torch.cat([p.detach().flatten() for p in make_with_vllm("grpo").model.parameters()])
    assert samples[0] == samples[1] and len(samples[0]) == 32
    assert (weights[0] - weights[1]).norm() < 1e-4 * (weights[1] - start).norm()


class TRLWithSeeds(GRPOTrainer):
    """TRL's trainer with the random states of ours around a generation."""

    def _generate(self, prompts):
        from gbpo.trainer.sampling.seeds import SamplingSeeds, random_state

        self.seeds = getattr(self, "seeds", None) or SamplingSeeds(self.args.seed, 0)
        stream = self.seeds.next_stream(self.state.global_step, "train")
        with random_state(stream.getrandbits(31), self.accelerator.device):
            return super()._generate(prompts)


@pytest.mark.parametrize("config", [GBPOConfig, BaseConfig])
def test_settings_that_would_be_ignored_are_refused(config, monkeypatch):
    def refusal(**fields):
        with pytest.raises(ValueError) as caught:
            config("out", use_cpu=True, bf16=False, **fields)
        return str(caught.value)

    vllm = {"use_vllm": True, "ratio_anchor": "sampler"}
    assert "needs the log-probs that vLLM reports, but use_vllm is false" in refusal(ratio_anchor="sampler")
    assert "ratio_anchor='engine' is unknown" in refusal(ratio_anchor="engine")
    mode = refusal(vllm_importance_sampling_mode="token_mask", **vllm)
    assert "vllm_importance_sampling_mode='token_mask' would be ignored" in mode
    assert "vllm_importance_sampling_clip_max=2.0 would be ignored" in refusal(
        vllm_importance_sampling_clip_max=2.0, **vllm
    )
    made = config("out", use_cpu=True, bf16=False, **vllm)
    assert not made.vllm_importance_sampling_correction


def test_the_anchor_of_a_configuration():
    def anchor(**fields):
        return Anchor.of(GRPOConfig("out", use_cpu=True, bf16=False, **fields))

    assert anchor() == Anchor() == anchor(use_vllm=True, vllm_importance_sampling_correction=False)
    assert anchor(use_vllm=True) == Anchor(False, "sequence_mask", None, 3.0)


def test_a_limit_may_be_missing():
    ratios, zeros, ones = torch.tensor([[0.1, 1.0, 9.0]]), torch.zeros(1, 3), torch.ones(1, 3)

    def limited(mode, **limits):
        ratio, outside = Anchor(mode=mode, **limits).importance_ratio(ratios.log(), zeros, ones)
        return ratio[0].tolist(), outside[0].tolist()

    assert limited("token_truncate", high=2.0) == (pytest.approx([0.1, 1.0, 2.0]), [False, False, True])
    assert limited("token_truncate", low=0.5) == (pytest.approx([0.5, 1.0, 9.0]), [True, False, False])
    assert limited("token_truncate") == (pytest.approx([0.1, 1.0, 9.0]), [False, False, False])
    assert limited("token_mask", low=0.5) == (pytest.approx([0.0, 1.0, 9.0]), [True, False, False])


def test_the_hazard_of_the_median_with_the_sampler():
    """A completion with the median reward has the target 1 and, because of rounding, a ratio near 1."""

    def hazards(**fields):
        config = {"use_vllm": True, "ratio_anchor": "sampler", "num_iterations": 2, "use_cpu": True, "bf16": False}
        return [text for text in GBPOConfig("out", **(config | fields)).hazards() if "random sign" in text]

    assert len(hazards()) == 1
    assert hazards(target_baseline="exact") == hazards(ratio_anchor="trainer") == []
