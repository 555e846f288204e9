"""The loss of GBPOTrainer, compared with the published formula and, option by option, with GRPOTrainer."""

import math
import re

import pytest
import torch
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from gbpo import GBPOConfig, GBPOTrainer
from gbpo.run.models.tiny import character_tokenizer
from gbpo.trainer.base import BaseTrainer
from gbpo.trainer.passes.batch import rows_of
from rollouts import character_sum

AGGREGATIONS = ["dapo", "grpo", "bnpo", "dr_grpo"]


def published_loss(logps, old_logps, mask, rewards, group, epsilon_low, epsilon_high, temperature):
    """GBPO as published, in plain Python: the token mean of |A|·|ρ - ρ*| over a batch, and its gradient by log-prob."""
    total, tokens, gradient = 0.0, 0, torch.zeros_like(logps)
    for start in range(0, len(rewards), group):
        members = rewards[start : start + group]
        ordered = sorted(members)
        median = (ordered[(group - 1) // 2] + ordered[group // 2]) / 2
        mean = sum(members) / group
        std = math.sqrt(sum((r - mean) ** 2 for r in members) / (group - 1))
        for i in range(start, start + group):
            advantage = (rewards[i] - mean) / (std + 1e-4)  # TRL adds 1e-4
            z = (rewards[i] - median) / (std + 1e-4) / temperature
            target = 1 - epsilon_low + (epsilon_low + epsilon_high) * (1 / (1 + math.exp(-max(min(z, 500), -500))))
            for t in range(logps.size(1)):
                if mask[i, t]:
                    ratio = math.exp(logps[i, t] - old_logps[i, t])
                    total += abs(advantage) * abs(ratio - target)
                    gradient[i, t] = abs(advantage) * math.copysign(1, ratio - target) * ratio
                    tokens += 1
    return total / tokens, gradient / tokens


REWARDS = [1.0, 0.0, 0.0, 0.0, 0.9, 0.9, 0.1, 0.3]


def with_rewards(trainer, batch, rewards=REWARDS):
    """The batch with the advantages and targets that follow from these rewards in groups of 4."""
    groups = torch.tensor(rewards).view(-1, 4)
    advantages = ((groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-4)).view(-1)
    batch = {key: value for key, value in batch.items() if key != "tool_mask"} | {"advantages": advantages}
    target, centred = trainer.targets(advantages)
    return batch | {"target_ratio": target, "centred_advantages": centred}


@pytest.mark.parametrize(("epsilon", "epsilon_high", "temperature"), [(0.2, None, 1e-4), (0.2, 0.28, 0.7)])
def test_median_target_is_the_published_formula(
    make_trainer, make_batch, gradient, distance, epsilon, epsilon_high, temperature
):
    trainer = make_trainer(epsilon=epsilon, epsilon_high=epsilon_high, target_temperature=temperature)
    batch = with_rewards(trainer, make_batch(trainer))
    loss, actual = gradient(trainer, batch)

    trainer.model.zero_grad()
    logps = trainer._get_per_token_logps_and_entropies(
        trainer.model,
        torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1),
        torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1),
        6,
    )[0]
    expected, by_logps = published_loss(
        logps.detach().double(),
        batch["old_per_token_logps"].double(),
        batch["completion_mask"],
        REWARDS,
        4,
        epsilon,
        epsilon_high or epsilon,
        temperature,
    )
    logps.backward(by_logps.float())
    reference = torch.cat([p.grad.flatten() for p in trainer.model.parameters()])
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert distance(actual, reference) < 1e-5  # float32 log-probs against float64 arithmetic


@pytest.mark.parametrize("baseline", ["exact", "mean"])
@pytest.mark.parametrize("loss_type", AGGREGATIONS)
def test_first_step_equals_grpo_for_binary_rewards(make_trainer, make_batch, gradient, distance, baseline, loss_type):
    """At ρ = 1 the gradient is -|A|·sign(ρ* - 1), which is GRPO's where ρ* - 1 has the sign of A."""
    gbpo = make_trainer("gbpo", target_baseline=baseline, loss_type=loss_type)
    grpo = make_trainer("grpo", loss_type=loss_type)
    batch = with_rewards(gbpo, make_batch(gbpo), [1.0, 0, 0, 0, 1, 1, 1, 0])
    del batch["old_per_token_logps"]
    _, actual = gradient(gbpo, batch)
    _, expected = gradient(grpo, batch)
    assert distance(actual, expected) < 1e-6


def test_the_first_step_of_the_median_target_differs_from_grpo(make_trainer, make_batch, gradient, distance):
    """The majority of a binary group equals the median, so its target is 1 and it has no gradient."""
    gbpo, grpo = make_trainer("gbpo"), make_trainer("grpo")
    batch = with_rewards(gbpo, make_batch(gbpo), [1.0, 0, 0, 0, 1, 1, 1, 0])
    del batch["old_per_token_logps"]
    minority = torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 1])  # rows whose reward is not the median
    _, actual = gradient(gbpo, batch)
    _, grpo_gradient = gradient(grpo, batch)
    _, expected = gradient(grpo, batch | {"advantages": batch["advantages"] * minority})
    assert distance(actual, expected) < 1e-6
    assert distance(actual, grpo_gradient) > 0.1


# The options of GRPOConfig that act in the loss and that GBPO supports, each with the batch entries that it needs.
OPTIONS = {
    **{f"loss_type={name}": ({"loss_type": name}, set()) for name in AGGREGATIONS},
    "asymmetric epsilon": ({"epsilon": 0.1, "epsilon_high": 0.4}, set()),
    "importance_sampling_level": ({"importance_sampling_level": "sequence", "loss_type": "grpo"}, set()),
    "sequence level, dapo": ({"importance_sampling_level": "sequence"}, set()),
    "beta": ({"beta": 0.3, "use_bias_correction_kl": False}, {"ref_per_token_logps"}),
    "use_bias_correction_kl": ({"beta": 0.3, "use_bias_correction_kl": True}, {"ref_per_token_logps"}),
    "beta, sequence level": (
        {"beta": 0.3, "importance_sampling_level": "sequence", "loss_type": "grpo"},
        {"ref_per_token_logps"},
    ),
    "off_policy_mask_threshold": ({"off_policy_mask_threshold": 0.05}, set()),
    "off-policy mask with vLLM's log-probs": ({"off_policy_mask_threshold": 0.05}, {"sampling_per_token_logps"}),
    "top_entropy_quantile": ({"top_entropy_quantile": 0.4}, set()),
    "entropy_coef": ({"entropy_coef": 0.5}, set()),
    "entropy_coef and top_entropy_quantile": ({"entropy_coef": 0.5, "top_entropy_quantile": 0.4}, set()),
    "tool_mask": ({}, {"tool_mask"}),
    "tool_mask, grpo": ({"loss_type": "grpo"}, {"tool_mask"}),
    "tool_mask, sequence level": ({"loss_type": "grpo", "importance_sampling_level": "sequence"}, {"tool_mask"}),
    "everything": (
        {
            "beta": 0.1,
            "entropy_coef": 0.2,
            "top_entropy_quantile": 0.6,
            "off_policy_mask_threshold": 0.05,
            "loss_type": "bnpo",
        },
        {"ref_per_token_logps", "tool_mask"},
    ),
}
OPTIONAL_TENSORS = {"ref_per_token_logps", "sampling_per_token_logps", "tool_mask"}


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_acts_as_in_grpo(make_trainer, make_batch, add_targets, gradient, distance, grpo_limit, option):
    """With baseline mean, temperature 0 and overshoot_slope 0 the gradient is GRPO's, inside and outside the bounds.

    Each option must also change the gradient; otherwise the test would prove nothing.
    """
    config, tensors = OPTIONS[option]
    gbpo, grpo = make_trainer("gbpo", **grpo_limit, **config), make_trainer("grpo", **config)
    whole = make_batch(gbpo)
    ratio = (gbpo_logps(gbpo, whole) - whole["old_per_token_logps"]).exp()
    assert (ratio > 1.4).any() and (ratio < 0.6).any() and ((ratio > 0.9) & (ratio < 1.1)).any()
    batch = {key: value for key, value in whole.items() if key not in OPTIONAL_TENSORS - tensors}
    _, expected = gradient(grpo, batch)
    _, actual = gradient(gbpo, add_targets(gbpo, batch))
    assert distance(actual, expected) < 1e-6
    assert_shared_metrics_agree(gbpo, grpo)
    if option not in ("loss_type=dapo", "loss_type=bnpo"):  # with a single micro-batch, bnpo equals dapo
        plain = {key: value for key, value in whole.items() if key not in OPTIONAL_TENSORS}
        _, without = gradient(make_trainer("grpo"), plain)
        assert distance(actual, without) > 1e-3


@pytest.mark.parametrize("slope", [0.0, 1.0])
def test_bounds_on_the_probability_give_the_gradient_of_dppo(
    make_trainer, make_batch, add_targets, gradient, distance, slope
):
    """With κ 0 a token past its bound has no gradient, as in DPPO; with κ 1 it is pulled back to π0 ± ε."""
    options = {"target_baseline": "mean", "target_temperature": 0.0, "bound_exponent": 1.0, "overshoot_slope": slope}
    epsilon = 0.004  # tokens of a random model have probabilities near 0.01
    trainer = make_trainer(**options, epsilon=epsilon)
    batch = {key: value for key, value in make_batch(trainer).items() if key not in OPTIONAL_TENSORS}
    batch = add_targets(trainer, batch)
    _, actual = gradient(trainer, batch)
    trainer.model.zero_grad()
    logps = trainer._get_per_token_logps_and_entropies(
        trainer.model,
        torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1),
        torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1),
        6,
    )[0]
    new, old = logps.detach().exp(), batch["old_per_token_logps"].exp()
    advantages, mask = batch["advantages"].unsqueeze(1), batch["completion_mask"]
    past = torch.where(advantages > 0, new > (old + epsilon).clamp(max=1), new < (old - epsilon).clamp(min=0))
    assert 0 < (past & (mask > 0)).sum() < mask.sum()
    factor = torch.where(past, -slope, 1.0)
    logps.backward(-factor * advantages * new / old * mask / mask.sum())
    expected = torch.cat([p.grad.flatten() for p in trainer.model.parameters()])
    assert distance(actual, expected) < 1e-5
    low, high = (old - epsilon).clamp(min=0), (old + epsilon).clamp(max=1)
    outside = ((new > high) & (advantages > 0)) | ((new < low) & (advantages < 0))
    share = (outside * mask).sum() / mask.sum()
    assert trainer._metrics["train"]["gbpo/overshoot"] == [pytest.approx(share.item(), rel=1e-5)]


def test_the_exponent_does_not_matter_at_the_first_step(make_trainer, make_batch, gradient, distance):
    """At ρ = 1 the gradient depends only on the side of the target, also for one ratio per sequence."""
    for level in ("token", "sequence"):
        options = {"importance_sampling_level": level, "loss_type": "grpo"}
        published, widened = make_trainer(**options), make_trainer(**options, bound_exponent=0.5)
        batch = with_rewards(published, make_batch(published))
        _, moved = gradient(widened, batch)
        _, published_moved = gradient(published, batch)
        assert distance(moved, published_moved) > 1e-2
        del batch["old_per_token_logps"]
        _, actual = gradient(widened, batch)
        _, expected = gradient(published, batch)
        assert distance(actual, expected) < 1e-6


def gbpo_logps(trainer, batch):
    with torch.no_grad():
        return trainer._get_per_token_logps_and_entropies(
            trainer.model,
            torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1),
            torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1),
            6,
        )[0]


def assert_shared_metrics_agree(gbpo, grpo, skip=()):
    shared = {name: values for name, values in grpo._metrics["train"].items() if name not in skip}
    assert set(shared) <= set(gbpo._metrics["train"])
    for name in set(shared) - {"policy_loss"}:  # the gradients are equal, the losses are not
        assert gbpo._metrics["train"][name] == pytest.approx(shared[name], rel=1e-5, abs=1e-7), name


def test_truncated_completions_are_masked(make_trainer, make_batch, add_targets, gradient, distance, grpo_limit):
    """`mask_truncated_completions` sets rows of the mask to 0. They have no weight, and nothing is divided by zero."""
    for loss_type in AGGREGATIONS:
        gbpo = make_trainer("gbpo", **grpo_limit, loss_type=loss_type, mask_truncated_completions=True)
        grpo = make_trainer("grpo", loss_type=loss_type, mask_truncated_completions=True)
        batch = {key: value for key, value in make_batch(gbpo).items() if key not in OPTIONAL_TENSORS}
        _, without = gradient(grpo, batch)
        batch["completion_mask"][[0, 3]] = 0
        batch["num_items_in_batch"] = batch["completion_mask"].sum()
        _, expected = gradient(grpo, batch)
        _, actual = gradient(gbpo, add_targets(gbpo, batch))
        assert distance(actual, expected) < 1e-6, loss_type
        assert distance(actual, without) > 1e-2


def test_gradient_accumulation_acts_as_in_grpo(make_trainer, make_batch, add_targets, gradient, distance, grpo_limit):
    for loss_type in AGGREGATIONS:
        for slices in (4, 8):  # with 8, a generation has two optimiser steps
            config = {"gradient_accumulation_steps": 4, "steps_per_generation": slices, "loss_type": loss_type}
            config |= {"entropy_coef": 0.3}
            gbpo, grpo = make_trainer("gbpo", **grpo_limit, **config), make_trainer("grpo", **config)
            batch = {key: value for key, value in make_batch(gbpo).items() if key not in OPTIONAL_TENSORS}
            _, expected = gradient(grpo, batch)
            _, actual = gradient(gbpo, add_targets(gbpo, batch))
            assert distance(actual, expected) < 1e-6, (loss_type, slices)


def test_adaptive_entropy_follows_trl(make_trainer, make_batch, add_targets, gradient, distance, grpo_limit):
    """The coefficient is TRL's after every step, for entropies above and below the target, with accumulation."""
    for target in (0.01, 100.0):
        config = {
            "use_adaptive_entropy": True,
            "entropy_coef": 0.1,
            "entropy_target": target,
            "entropy_coef_max": 0.12,
            "entropy_coef_delta": 0.03,
        }
        gbpo, grpo = make_trainer("gbpo", **grpo_limit, **config), make_trainer("grpo", **config)
        seen = []
        for step in range(6):
            batch = {key: value for key, value in make_batch(gbpo, seed=step).items() if key not in OPTIONAL_TENSORS}
            for trainer in (gbpo, grpo):
                trainer.accelerator.gradient_state._set_sync_gradients(step % 2 == 1)
            _, expected = gradient(grpo, batch)
            _, actual = gradient(gbpo, add_targets(gbpo, batch))
            assert distance(actual, expected) < 1e-6
            assert gbpo.entropy_coef == grpo.entropy_coef
            assert gbpo._last_world_entropy == pytest.approx(grpo._last_world_entropy)
            seen.append(gbpo.entropy_coef)
        assert len(set(seen)) > 1
        for values in grpo._metrics["train"].values():  # a step has two micro-batches with equally many tokens
            if len(values) == 6:
                values[:] = [sum(values[i : i + 2]) / 2 for i in (0, 2, 4)]
        gbpo._metrics["train"].pop("policy_loss")
        assert_shared_metrics_agree(gbpo, grpo, skip={"policy_loss", "clip_ratio/low_min", "clip_ratio/high_max"})


def test_load_balancing_loss_acts_as_in_grpo(
    make_trainer, make_batch, add_targets, gradient, distance, grpo_limit, tmp_path
):
    tokenizer = character_tokenizer()
    torch.manual_seed(0)
    Qwen3MoeForCausalLM(
        Qwen3MoeConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            moe_intermediate_size=32,
            num_experts=4,
            num_experts_per_tok=2,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=16,
            router_aux_loss_coef=0.5,
        )
    ).save_pretrained(tmp_path / "moe")
    tokenizer.save_pretrained(tmp_path / "moe")
    model = str(tmp_path / "moe")
    gbpo, grpo = make_trainer("gbpo", model=model, **grpo_limit), make_trainer("grpo", model=model)
    assert gbpo.aux_loss_enabled
    batch = {key: value for key, value in make_batch(gbpo).items() if key not in OPTIONAL_TENSORS}
    _, expected = gradient(grpo, batch)
    _, actual = gradient(gbpo, add_targets(gbpo, batch))
    _, without = gradient(make_trainer("grpo", model=model, router_aux_loss_coef=0.0), batch)
    assert distance(actual, expected) < 1e-6
    assert distance(actual, without) > 1e-3
    assert_shared_metrics_agree(gbpo, grpo)


def test_multimodal_inputs_reach_the_model_unchanged(make_trainer, make_batch, add_targets, monkeypatch):
    """GBPO passes the same entries of a batch to the model as TRL."""
    keys = [
        "pixel_values",
        "image_grid_thw",
        "num_images",
        "pixel_attention_mask",
        "spatial_shapes",
        "num_tiles",
        "image_sizes",
        "token_type_ids",
        "mm_token_type_ids",
        "image_position_ids",
    ]
    received = {}
    for algorithm in ("gbpo", "grpo"):
        trainer = make_trainer(algorithm)
        batch = make_batch(trainer) | {key: object() for key in keys}
        if algorithm == "gbpo":
            batch = add_targets(trainer, batch)
        forward = trainer._get_per_token_logps_and_entropies

        def spy(*args, algorithm=algorithm, forward=forward, batch=batch, **kwargs):
            received[algorithm] = {key for key in keys if kwargs.get(key) is batch[key]}
            text_only = {key: value for key, value in kwargs.items() if key not in keys}
            return forward(*args, **text_only)

        monkeypatch.setattr(trainer, "_get_per_token_logps_and_entropies", spy)
        trainer.model.train()
        trainer.current_gradient_accumulation_steps = 1
        if algorithm == "gbpo":
            trainer.compute_loss(trainer.model, [trainer.as_pass(batch | {"rows": rows_of(batch)})])
        else:
            trainer._compute_loss(trainer.model, batch)
    assert received["gbpo"] == received["grpo"] == set(keys)


def test_the_ratio_is_computed_once_per_pass(make_trainer, make_batch, add_targets, gradient, monkeypatch):
    """Loss, metrics and percentiles read the same tensor."""
    trainer = make_trainer()
    batch = add_targets(trainer, {k: v for k, v in make_batch(trainer).items() if k not in OPTIONAL_TENSORS})
    exp, shapes = torch.Tensor.exp, []
    monkeypatch.setattr(torch.Tensor, "exp", lambda tensor: shapes.append(tensor.shape) or exp(tensor))
    gradient(trainer, batch)
    assert shapes.count((8, 6)) == 1
    assert trainer._metrics["train"].keys() >= {"gbpo/ratio_p50", "gbpo/ratio_error", "clip_ratio/region_mean"}


def test_advantages_are_gathered_once_per_generation(make_trainer, monkeypatch):
    trainer = make_trainer(reward_funcs=character_sum, resample_zero_signal_groups=True)
    trainer.model.train()
    gather, gathered = trainer.accelerator.gather, []
    monkeypatch.setattr(trainer.accelerator, "gather", lambda x: gathered.append(x) or gather(x))
    batch = trainer._generate_and_score_completions([{"prompt": f"{i // 4}+1="} for i in range(8)])
    assert trainer._metrics["train"]["gbpo/resampled_groups"] == [0]
    of_advantages = [x for x in gathered if x.shape == (8,) and torch.equal(x, batch["advantages"])]
    assert len(of_advantages) == 1


def test_extreme_ratios_stay_finite(make_trainer, make_batch, add_targets, gradient):
    trainer = make_trainer(max_log_ratio=20.0)
    batch = add_targets(trainer, {k: v for k, v in make_batch(trainer).items() if k not in OPTIONAL_TENSORS})
    batch["old_per_token_logps"] = batch["old_per_token_logps"] + torch.tensor([200.0, -200.0] * 4).unsqueeze(1)
    loss, actual = gradient(trainer, batch)
    assert loss.isfinite() and actual.isfinite().all()


def test_the_ratio_is_clamped_where_the_config_says(make_trainer, make_batch, add_targets, gradient):
    trainer = make_trainer(max_log_ratio=0.5)
    batch = add_targets(trainer, {k: v for k, v in make_batch(trainer).items() if k not in OPTIONAL_TENSORS})
    batch["old_per_token_logps"] = gbpo_logps(trainer, batch) - 2.0  # every log-ratio is 2
    _, actual = gradient(trainer, batch)
    assert actual.norm() == 0  # the gradient is 0 beyond the clamp


def test_metrics_by_hand(make_trainer, make_batch, gradient):
    """Hand-set ρ of each token. Groups of 4 with rewards 1 0 0 0; the exact ρ* is 1.2 for 1 and 1 - 0.2/3 for 0."""
    trainer = make_trainer(target_baseline="exact", epsilon=0.2)
    batch = with_rewards(trainer, make_batch(trainer), [1.0, 0, 0, 0, 1, 0, 0, 0])
    batch["completion_mask"] = torch.ones(8, 6, dtype=torch.long)
    batch["num_items_in_batch"] = torch.tensor(48)
    log_ratio = torch.zeros(8, 6)
    log_ratio[0] = math.log(1.3)  # a row with reward 1, past its target 1.2 and above 1 + ε
    log_ratio[1, :3] = math.log(1.25)  # half of a row with reward 0, outside the bounds and away from its target
    batch["old_per_token_logps"] = gbpo_logps(trainer, batch) - log_ratio
    loss, _ = gradient(trainer, batch)
    metrics = {name: values[0] for name, values in trainer._metrics["train"].items()}
    low = 1 - 0.2 / 3
    # A is 1.5 and -0.5 (up to the 1e-4 that TRL adds to the std): |A| sums to 6·2·(1.5 + 3·0.5) = 36
    assert metrics["gbpo/overshoot"] == pytest.approx(6 / 48)
    error = 6 * 1.5 * 0.1 + 6 * 1.5 * 0.2 + 3 * 0.5 * (1.25 - low) + 33 * 0.5 * (1 - low)
    assert metrics["gbpo/ratio_error"] == pytest.approx(error / 36, rel=1e-5)
    assert loss.item() == pytest.approx(error / 48, rel=1e-3)  # A is 1.5 and -0.5 only approximately, see above
    # ε·mean|Ã| - loss, where Ã = A - median(A) is 2 for the quarter with reward 1 and 0 for the others
    assert metrics["gbpo/improvement_estimate"] == pytest.approx((0.2 * 2 / 4) - error / 48, rel=1e-3)


def test_ratio_error_has_the_weights_of_the_loss(make_trainer, make_batch, gradient):
    """With loss_type grpo each completion counts once: the error is 0.1 in row 0 (6 tokens), 0.3 in row 1 (1)."""
    trainer = make_trainer(target_baseline="exact", epsilon=0.2, loss_type="grpo")
    batch = with_rewards(trainer, make_batch(trainer), [1.0, 1, 0, 0, 0, 0, 0, 0])
    mask = torch.ones(8, 6, dtype=torch.long)
    mask[1, 1:] = 0
    batch["completion_mask"] = mask
    target = batch["target_ratio"].unsqueeze(1)  # 1.2, 1.2, 0.8, 0.8; the second group has A = 0
    ratio = target.expand(8, 6).clone()
    ratio[0] += 0.1
    ratio[1] += 0.3
    batch["old_per_token_logps"] = gbpo_logps(trainer, batch) - ratio.log()
    gradient(trainer, batch)
    # four rows with the same |A|: (0.1 + 0.3 + 0 + 0) / 4; the mean over tokens would be (0.6 + 0.3) / 19
    assert trainer._metrics["train"]["gbpo/ratio_error"][0] == pytest.approx(0.1, rel=1e-4)


def test_target_metrics_by_hand(make_trainer):
    trainer = make_trainer(target_baseline="median", epsilon=0.2)
    trainer.model.train()
    advantages = torch.tensor([1.5, -0.5, -0.5, -0.5])
    target, centred = trainer.targets(advantages)
    trainer._log_targets(target, centred, advantages)
    metrics = {name: values[0] for name, values in trainer._metrics["train"].items()}
    assert metrics["gbpo/target_ratio_mean"] == pytest.approx(1.05)  # (1.2 + 3) / 4
    assert metrics["gbpo/target_ratio_std"] == pytest.approx(0.2 * math.sqrt(3) / 4)
    assert metrics["gbpo/tied_fraction"] == 0.75
    assert metrics["gbpo/sign_disagreement"] == 0.75  # the target of the ties is 1, and their advantage is negative


@pytest.mark.parametrize("trainer", [GBPOTrainer, BaseTrainer])
def test_a_builtin_model_is_named_before_the_hub_is_asked(trainer, tmp_path):
    args = GBPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False)
    fix = re.escape("Write model=gbpo.local_model('builtin:tiny_math').")
    with pytest.raises(ValueError, match=fix):
        trainer(model="builtin:tiny_math", reward_funcs=lambda completions, **_: [0.0], args=args)


@pytest.mark.parametrize("trainer", [GBPOTrainer, BaseTrainer])
@pytest.mark.parametrize("rewards", ["math", ["math"], "gpt2", [lambda completions, **_: [0.0], "my_rewards.own"]])
def test_the_name_of_a_reward_is_refused_before_the_hub_is_asked(trainer, rewards, tmp_path):
    args = GBPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False)
    name = rewards if isinstance(rewards, str) else rewards[-1]
    with pytest.raises(ValueError, match=re.escape(f"Write gbpo.get_reward({name!r}) or")):
        trainer("Qwen/no-such-model", rewards, args)
