"""Runs with `sampling_dtype`: transformers samples with rounding, and the loss corrects for it as with vLLM."""

import pytest
import torch

from gbpo.trainer.base import BaseTrainer
from gbpo.trainer.config import BaseConfig
from gbpo.trainer.guards.phase_times import PHASES
from rollouts import character_sum

TIMES = {"step_time", "train_runtime", "train_samples_per_second", "train_steps_per_second"}
TIMES |= {f"time/{phase}" for phase in PHASES}


@pytest.fixture
def make(make_trainer, tmp_path):
    """`make("gbpo" | "grpo", **config)`: a trainer of 3 generations in bfloat16, with 2 optimiser steps each."""

    def make(algorithm="gbpo", **config):
        defaults = {"sampling_dtype": "bfloat16", "max_steps": 6, "seed": 3, "reward_funcs": character_sum}
        defaults |= {"vllm_importance_sampling_mode": "token_truncate", "output_dir": str(tmp_path / "run")}
        if algorithm == "grpo":
            defaults |= {"base": BaseTrainer, "config_class": BaseConfig}
        return make_trainer(algorithm, **(defaults | config))

    return make


def history(trainer):
    return [{k: v for k, v in row.items() if k not in TIMES} for row in trainer.state.log_history]


@pytest.fixture
def batches(monkeypatch):
    """`batches(trainer)` trains, and returns each scored generation with the weights that sampled it."""

    def run(trainer):
        found, scored = [], trainer._scored

        def record(inputs):
            weights = {name: value.clone() for name, value in trainer.model.state_dict().items()}
            batch, advantages = scored(inputs)
            found.append((batch, weights))
            return batch, advantages

        monkeypatch.setattr(trainer, "_scored", record)
        trainer.train()
        return found

    return run


def log_probs(model, batch):
    """Log-probs of the completions, one row at a time without padding."""
    found = []
    for prompt, prompt_mask, ids, mask in zip(
        *(batch[name] for name in ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")), strict=True
    ):
        row = torch.cat([prompt[prompt_mask.bool()], ids[mask.bool()]])
        length = int(mask.sum())
        logits = model(row.unsqueeze(0)).logits[0, -length - 1 : -1].float()
        found.append(logits.log_softmax(-1).gather(1, row[-length:, None]).squeeze(1))
    return torch.cat(found)


@pytest.mark.parametrize("algorithm", ["gbpo", "grpo"])
def test_the_sampler_rounds_and_the_trainer_does_not(make, batches, algorithm):
    """The stored log-probs of the sampler are those of a forward pass in bfloat16, the weights stay float32."""
    trainer = make(algorithm, exact_speedups=["none"])  # logs the gap of all rows
    scored = batches(trainer)
    assert len(scored) == 3
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    gaps = []
    for batch, weights in scored:
        trainer.model.load_state_dict(weights)
        kept = batch["sampling_per_token_logps"][batch["completion_mask"].bool()]
        with torch.no_grad():
            exact = log_probs(trainer.model, batch)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                rounded = log_probs(trainer.model, batch)
        gap = (exact - rounded).abs().mean()
        assert gap > 1e-4
        assert (kept - rounded).abs().mean() < gap / 2  # padding changes the rounding a little
        gaps.append((exact - kept).abs().mean().item())
    logged = [row["sampling/sampling_logp_difference/mean"] for row in history(trainer)[:-1:2]]
    assert logged == pytest.approx(gaps, rel=1e-2)


def test_the_importance_ratios_of_the_rounding_act(make):
    """Ratios π0/μ truncated to at most 1e-3 leave a thousandth of the gradient."""
    limits = {"vllm_importance_sampling_clip_min": 0.0, "vllm_importance_sampling_clip_max": 1e-3}
    norms = []
    for options in ({}, limits):
        trainer = make(max_steps=1, **options)
        trainer.train()
        norms.append(history(trainer)[0]["grad_norm"])
    assert norms[1] == pytest.approx(1e-3 * norms[0], rel=0.05)


def test_with_the_anchor_sampler_the_first_ratios_are_the_rounding(make):
    rows = {}
    for anchor in ("trainer", "sampler"):
        options = {} if anchor == "trainer" else {"vllm_importance_sampling_mode": "sequence_mask"}
        trainer = make(ratio_anchor=anchor, max_steps=1, **options)
        trainer.train()
        rows[anchor] = history(trainer)[0]
    assert rows["trainer"]["gbpo/ratio_p01"] == rows["trainer"]["gbpo/ratio_p99"] == 1.0
    assert 0.5 < rows["sampler"]["gbpo/ratio_p01"] < 0.999 < 1.001 < rows["sampler"]["gbpo/ratio_p99"] < 2.0


@pytest.mark.slow
@pytest.mark.parametrize("ahead", [0, 1])
def test_a_resumed_run_is_bitwise_equal(make, tmp_path, ahead):
    config = {"generate_ahead": ahead, "save_strategy": "steps", "save_steps": 1}
    whole = make(output_dir=str(tmp_path / "whole"), **config)
    whole.train()
    for step in range(1, 6):
        again = make(output_dir=str(tmp_path / f"again-{step}"), **config)
        again.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{step}"))
        assert history(again)[:-1] == history(whole)[:-1], step


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"sampling_dtype": "int8"}, "sampling_dtype='int8' is unknown. Write one of bfloat16, float16"),
        ({"use_vllm": True}, "sampling_dtype='bfloat16' has no effect with use_vllm=True"),
    ],
)
def test_wrong_values_are_refused_in_one_line(make, config, message):
    with pytest.raises(ValueError, match=message) as error:
        make(**config)
    assert "\n" not in str(error.value)


def test_a_rollout_func_is_refused_by_name(make):
    rollout = {"trainer": {"rollout_func": lambda prompts, trainer: None}}
    with pytest.raises(ValueError, match=r"sampling_dtype='bfloat16' cannot be used here: a rollout_func .* Remove"):
        make(**rollout)
