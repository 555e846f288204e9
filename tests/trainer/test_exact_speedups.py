"""With and without the exact speed-ups, optimiser steps change the weights in the same way."""

import random
import zlib

import pytest
import torch
from peft import LoraConfig

import varlen_attention
from gbpo.trainer.base import BaseTrainer
from gbpo.trainer.config import BaseConfig
from gbpo.trainer.passes.speedups import SPEEDUPS
from rollouts import equal_rewards, rollout_of

OFF = {"exact_speedups": ["none"]}
BATCH = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4, "max_completion_length": 24}


def reward(completions, prompts, **kwargs):
    """Three values that depend on the text; 1 for all completions of every second prompt."""
    return [
        1.0 if int(prompt[0]) % 2 else float(zlib.crc32(text.encode()) % 3)
        for prompt, text in zip(prompts, completions, strict=True)
    ]


def rollout(prompts, trainer):
    """Completions of 1 to 24 tokens, some truncated; in every fifth a tool wrote some of the tokens."""
    rng = random.Random(" ".join(prompts))
    torch.manual_seed(0)  # TRL shuffles the rows of a generation
    completions = [[rng.randrange(6, 100) for _ in range(rng.choice([1, 2, 3, 5, 8, 24]))] for _ in prompts]
    completions = [ids[:-1] + [1] if i % 4 else ids for i, ids in enumerate(completions)]
    prompts = [prompt + "1" * (i % 3) for i, prompt in enumerate(prompts)]
    env_mask = [[int(i % 5 > 0 or j % 2) for j in range(len(ids))] for i, ids in enumerate(completions)]
    return rollout_of(trainer, prompts, completions, env_mask=env_mask)


@pytest.fixture
def train(make_trainer):
    """`train(**config)` → the trainer after some steps, the change of its weights, and the shape of each pass."""

    def run(base=None, config_class=None, **config):
        defaults = {"max_steps": 1, "optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0.0}
        config = defaults | BATCH | {"lr_scheduler_type": "constant"} | config
        peft = {"peft_config": config.pop("peft_config")} if "peft_config" in config else {}
        torch.manual_seed(0)
        trainer = make_trainer(
            base=base,
            config_class=config_class,
            reward_funcs=reward,
            trainer={"rollout_func": rollout, **peft},
            **config,
        )
        torch.manual_seed(1)
        weights = [p for p in trainer.model.parameters() if p.requires_grad]
        if peft:  # one matrix of an adapter starts at 0, so the other has no gradient
            for p in weights:
                torch.nn.init.normal_(p, std=0.02)
        before = torch.cat([p.detach().flatten().clone() for p in weights])
        shapes = []
        hook = lambda module, inputs, output: shapes.append(tuple(inputs[0].shape))  # noqa: E731
        trainer.model.get_input_embeddings().register_forward_hook(hook)
        trainer.train()
        return trainer, torch.cat([p.detach().flatten() for p in weights]) - before, shapes

    return run


def tokens(shapes):
    """Tokens that were run, padding included."""
    return sum(rows * width for rows, width in shapes)


CASES = {
    "dapo": {},
    "grpo": {"loss_type": "grpo"},
    "bnpo": {"loss_type": "bnpo"},
    "dr_grpo": {"loss_type": "dr_grpo"},
    "sequence": {"importance_sampling_level": "sequence", "loss_type": "grpo"},
    "KL": {"beta": 0.1},
    "entropy bonus": {"entropy_coef": 0.1},
    "adaptive entropy": {"use_adaptive_entropy": True, "entropy_coef": 0.1, "entropy_target": 100.0},
    "tokens of high entropy": {"top_entropy_quantile": 0.5},
    "masked truncated": {"mask_truncated_completions": True, "loss_type": "bnpo"},
    "off-policy mask": {"off_policy_mask_threshold": 0.001, "max_steps": 3, "num_iterations": 3},
    "gradient checkpointing": {"gradient_checkpointing": True},
    "LoRA": {"peft_config": LoraConfig(target_modules="all-linear", r=4)},
    "many updates": {"num_iterations": 3, "max_steps": 6, "learning_rate": 0.1},
    "two updates a generation": {"gradient_accumulation_steps": 2, "steps_per_generation": 4, "max_steps": 2},
    "two updates a generation, used twice": {
        "gradient_accumulation_steps": 2,
        "steps_per_generation": 4,
        "num_iterations": 2,
        "max_steps": 4,
        "learning_rate": 0.1,
    },
    "two generations an update": {"steps_per_generation": 2, "num_iterations": 1},
    "unaligned": {"gradient_accumulation_steps": 3, "steps_per_generation": 4, "max_steps": 2, "loss_type": "grpo"},
    "little room": {"max_tokens_per_micro_batch": 32},
    "much room": {"max_tokens_per_micro_batch": 4096},
    "padded to 16": {"pad_to_multiple_of": 16},
}


@pytest.mark.sweep
@pytest.mark.parametrize("case", CASES)
def test_same_weights_as_without_speedups(train, distance, case):
    trainer, fast, shapes = train(**CASES[case])
    _, slow, wide = train(**(OFF | CASES[case] if "max_tokens" not in str(CASES[case]) else OFF))
    assert slow.norm() > 1e-3
    assert distance(fast, slow) < 1e-5
    assert tokens(shapes) < 0.8 * tokens(wide)
    if case in ("dapo", "much room"):
        assert len(shapes) < len(wide)
        assert trainer.state.log_history[0]["gbpo/rows_run"] < 0.75
    if case in ("KL", "entropy bonus", "adaptive entropy"):
        assert trainer.state.log_history[0]["gbpo/rows_run"] == 1


def test_same_weights_as_trl(train, distance, grpo_limit):
    """Compares GBPO with GRPO's gradient, TRL's own trainer, and the GRPO baseline with speed-ups."""
    config = {"num_iterations": 2, "max_steps": 4, "learning_rate": 0.1}
    _, ours, shapes = train(**config, **grpo_limit)
    trl, theirs, wide = train(algorithm="grpo", **config)
    _, trimmed, narrow = train(algorithm="grpo", base=BaseTrainer, **config)
    assert type(trl).__mro__[0].__module__.startswith("trl")
    assert distance(ours, theirs) < 1e-5 and distance(trimmed, theirs) < 1e-5
    assert tokens(shapes) < tokens(narrow) < tokens(wide)
    assert len(narrow) < len(wide)  # the first optimiser step gives the old log-probs


def test_the_grpo_baseline_obeys_exact_speedups(train, distance):
    """With `none` it runs the tokens that TRL runs. With `all`, the speed-ups of rows give their reason."""
    config = {"algorithm": "grpo", "num_iterations": 2, "max_steps": 2}
    base = {"base": BaseTrainer, "config_class": BaseConfig}
    _, trl, of_trl = train(**config)
    off, slow, padded = train(**config, **base, exact_speedups=["none"])
    on, fast, trimmed = train(**config, **base, exact_speedups=["all"])
    assert torch.equal(slow, trl) and padded == of_trl
    assert distance(fast, slow) < 1e-5
    assert tokens(trimmed) < 0.8 * tokens(padded)
    assert not any(name in off.speedups for name in SPEEDUPS)
    per_micro_batch = {name for name, why in on.speedups.inactive.items() if "per micro-batch" in why}
    assert per_micro_batch == {"arrange_rows", "skip_zero_signal"}
    assert "arrange_rows (TRL's GRPO loss is computed per micro-batch)" in on.speedups.line()


@pytest.mark.sweep
@pytest.mark.parametrize("switch", [name for name in SPEEDUPS if name not in ("pack_rows", "share_prompts")])
def test_without_one_speedup_the_weights_are_equal_and_more_tokens_are_run(train, distance, without, switch):
    config = {"num_iterations": 2, "max_steps": 2}
    _, fast, shapes = train(**config)
    _, one_off, more = train(**config, **without(switch))
    assert distance(fast, one_off) < 1e-5
    assert tokens(shapes) < tokens(more)


TWO_UPDATES = {"gradient_accumulation_steps": 2, "steps_per_generation": 4}


def test_old_log_probs_are_computed_only_for_rows_that_later_steps_run(train, without):
    config = TWO_UPDATES | {"max_steps": 2}
    trainer, _, shapes = train(**config, **without("share_prompts"))
    run = [16 * trainer.state.log_history[0]["gbpo/rows_run"]]
    _, _, every = train(**config, **without("share_prompts", "reuse_first_pass"))
    for some in (shapes, every):
        run.append(sum(rows for rows, _ in some) - run[0])
    with_signal, later, all_rows = run
    assert 0 < later <= min(8, with_signal) and all_rows == 16


def test_a_generation_that_starts_at_a_later_step_knows_its_first_step(make_trainer):
    """A run resumed from a checkpoint without completions generates anew; its next step needs no old log-probs."""
    trainer = make_trainer(reward_funcs=reward, trainer={"rollout_func": rollout}, **(BATCH | TWO_UPDATES))
    trainer.model.train()
    trainer._step = 2
    trainer._prepare_inputs([{"prompt": f"{i // 4}+1="} for i in range(16)])
    known = [[one.old_logps is not None for one in passes] for passes in trainer._buffered_inputs]
    assert all(all(some) for some in known[:2]) and not any(any(some) for some in known[2:])
    assert sum(map(len, known[:2])) and sum(map(len, known[2:]))


def test_packed_rows_give_the_same_weights(train, distance, without, monkeypatch):
    """With FlashAttention's interface around a kernel that runs on a CPU; test_packing.py has more cases."""
    config = {"num_iterations": 2, "max_steps": 2, "beta": 0.1, "learning_rate": 0.1}
    _, padded, _ = train(**config)
    varlen_attention.install(monkeypatch)
    config |= {"model_init_kwargs": {"attn_implementation": varlen_attention.NAME}}
    trainer, packed, shapes = train(**config)
    assert "pack_rows" in trainer.speedups and all(rows == 1 for rows, _ in shapes)
    assert distance(packed, padded) < 1e-5
    _, unpacked, shapes = train(**config, **without("pack_rows"))
    assert distance(unpacked, padded) < 1e-5 and any(rows > 1 for rows, _ in shapes)


def test_with_frequencies_that_depend_on_the_width_passes_are_not_trimmed(train, monkeypatch):
    monkeypatch.setattr("gbpo.trainer.passes.capabilities.depends_on_width", lambda config: True)
    _, _, shapes = train(num_iterations=2)
    _, _, wide = train(num_iterations=2, exact_speedups=["arrange_rows"])
    assert {width for _, width in shapes} == {width for _, width in wide} and len({width for _, width in wide}) == 1


def test_a_step_without_signal_is_a_zero_gradient_on_one_row(train):
    """With a gradient of None the optimiser would not apply its moments, as it does in TRL."""
    trainer, change, shapes = train(reward_weights=[0.0])
    assert change.abs().max() == 0 and len(shapes) == 1 and shapes[0][0] == 1
    row = trainer.state.log_history[0]
    assert row["gbpo/rows_run"] == 0 and row["grad_norm"] == 0


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("length", [1, 6])
def test_a_step_without_signal_logs_no_metric_of_tokens(make_trainer, level, length):
    """No row is run. Completions of one token make a pass of one column, as ratios of sequences are."""
    trainer = make_trainer(
        reward_funcs=equal_rewards, importance_sampling_level=level, max_completion_length=length, max_steps=2
    )
    trainer.train()
    of_tokens = ("gbpo/ratio_", "gbpo/outside_bounds", "gbpo/overshoot", "gbpo/improvement", "clip_ratio/", "entropy")
    for row in trainer.state.log_history[:2]:
        assert not [name for name in row if name.startswith(of_tokens)]
        assert row["loss"] == row["grad_norm"] == 0
    assert trainer.state.log_history[0]["gbpo/rows_run"] == 0


def test_metrics_do_not_depend_on_the_passes_if_all_rows_are_run(train, without):
    """Metrics are means over the tokens of the optimiser step."""
    config = {"num_iterations": 2, "max_steps": 2, "learning_rate": 0.1}
    left_out = (["skip_zero_signal"], ["skip_zero_signal", "arrange_rows"])
    rows = [train(**config, **without(*names))[0].state.log_history for names in left_out]
    for one, other in zip(*rows, strict=True):
        for name in one.keys() & other.keys():
            if name.startswith(("gbpo/", "clip_ratio/", "entropy", "loss", "grad_norm")):
                assert one[name] == pytest.approx(other[name], rel=1e-4, abs=1e-6), name


def test_rows_stay_in_their_optimiser_step(make_trainer):
    trainer = make_trainer(
        reward_funcs=reward, trainer={"rollout_func": rollout}, **(BATCH | {"steps_per_generation": 8})
    )
    seen = []
    planned = trainer._planned

    def keep(plan, micro_batches):
        passes = planned(plan, micro_batches)
        for first in (0, 4):
            batches = micro_batches[first : first + 4]
            written = [(batch["completion_mask"] * batch["tool_mask"]).any(1) for batch in batches]
            window = torch.cat([batch["advantages"] * some for batch, some in zip(batches, written, strict=True)])
            run = torch.cat([one.advantages for some in passes[first : first + 4] for one in some])
            seen.append((sorted(window[window != 0].tolist()), sorted(run.tolist())))
        return passes

    trainer._planned = keep
    trainer.args.max_steps = 2
    trainer.train()
    assert len(seen) == 2
    for window, run in seen:
        assert window == run and run
