"""Trimmed, arranged and skipped rows: the same gradient as every row in TRL's own micro-batches."""

import itertools
import random
import zlib

import numpy as np
import pytest
import torch
from peft import LoraConfig
from transformers import GPT2Config, Phi3Config, Qwen2Config

from gbpo.trainer.base import BaseTrainer
from gbpo.trainer.passes.capabilities import depends_on_width, has_rotary_embeddings, packs, shares
from gbpo.trainer.passes.layout import Lengths, as_many, split
from gbpo.trainer.passes.speedups import SPEEDUPS

OFF = {"exact_speedups": ["none"]}
BATCH = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4, "max_completion_length": 24}


def some_rows(rng, number, layout, longest=200):
    prompt_of = np.array([rng.randrange(4) for _ in range(number)])
    prompts = np.array([rng.randint(1, longest // 2) for _ in range(4)])[prompt_of]
    completions = np.array([rng.randint(0, longest // 2) for _ in range(number)])
    return Lengths(prompts, completions, layout == "packed", prompt_of if layout == "shared" else None)


def tokens(rows, chosen):
    """What a pass costs, by its definition."""
    lengths = (rows.prompts + rows.completions)[chosen]
    if rows.packed:
        return lengths.sum()
    alone = len(chosen) * lengths.max()
    if rows.prompt_of is None:
        return alone
    before = rows.prompts[chosen].max() - 1
    shared = len(set(rows.prompt_of[chosen])) * before
    shared += len(chosen) * (rows.completions[chosen].max() + 1 + before / 8)
    return shared if shared <= 7 / 8 * alone else alone


LAYOUTS = ["padded", "packed", "shared"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_split_takes_every_row_once_and_keeps_the_budget(layout):
    rng = random.Random(0)
    for _ in range(200):
        rows = some_rows(rng, rng.randint(1, 40), layout)
        budget, at_most = rng.randint(50, 1000), rng.randint(1, 12)
        passes = split(rows, budget, at_most)
        assert sorted(itertools.chain(*passes)) == list(range(len(rows.prompts)))
        assert all(len(chosen) == 1 or tokens(rows, chosen) <= budget for chosen in passes)
        if layout == "shared":
            continue
        lengths = (rows.prompts + rows.completions).tolist()
        longest = [max(lengths[row] for row in chosen) for chosen in passes]
        assert longest == sorted(longest, reverse=True)
        if len(passes) > at_most and layout == "padded":  # the budget asked for it: the fewest passes that keep it
            left, fewest = sorted(lengths), 0
            while left:  # as many as fit beside the longest
                left, fewest = left[: -max(1, budget // left[-1])], fewest + 1
            assert len(passes) == fewest


@pytest.mark.parametrize("layout", LAYOUTS)
def test_split_is_the_cheapest_of_all_ways_to_cut(layout):
    """By brute force over the cuts of the rows in each order, a pass counting 1/64 of the budget."""
    rng = random.Random(1)
    by_prompt = 0
    for _ in range(50):
        rows = some_rows(rng, 8, layout, longest=60)
        ways = {}
        for order in rows.orders():
            for cuts in itertools.chain(*(itertools.combinations(range(1, 8), n) for n in range(8))):
                passes = [order[a:b].tolist() for a, b in itertools.pairwise([0, *cuts, 8])]
                if all(tokens(rows, chosen) <= 128 or len(chosen) == 1 for chosen in passes):
                    ways[str(passes)] = sum(tokens(rows, chosen) for chosen in passes) + 2 * len(passes)
        passes = split(rows, budget=128, at_most=8)
        assert sum(tokens(rows, chosen) for chosen in passes) + 2 * len(passes) == pytest.approx(min(ways.values()))
        lengths = (rows.prompts + rows.completions)[list(itertools.chain(*passes))]
        by_prompt += bool((np.diff(lengths) > 0).any())
    assert (by_prompt > 5) == (layout == "shared")


def test_as_many_halves_the_fullest():
    assert as_many([[0, 1, 2], [3]], 3) == [[0, 1], [2], [3]]
    assert as_many([[0, 1]], 5) == [[0], [1]]
    assert as_many([], 2) == []
    assert as_many([[0], [1]], 1) == [[0], [1]]


def paid(completions, prompts, **kwargs):
    """Three values; the same for all completions of every second prompt."""
    return [
        1.0 if int(prompt[0]) % 2 else float(zlib.crc32(text.encode()) % 3)
        for prompt, text in zip(prompts, completions, strict=True)
    ]


def rollout(prompts, trainer):
    """Completions of 1 to 24 tokens, most of them ended; every fifth has tokens that the policy did not write."""
    rng = random.Random(" ".join(prompts))
    torch.manual_seed(0)  # the shuffle
    completions = [[rng.randrange(6, 100) for _ in range(rng.choice([1, 2, 3, 5, 8, 24]))] for _ in prompts]
    completions = [ids[:-1] + [1] if i % 4 else ids for i, ids in enumerate(completions)]
    return {
        "prompt_ids": [
            trainer.processing_class(prompt + "1" * (i % 3))["input_ids"] for i, prompt in enumerate(prompts)
        ],
        "completion_ids": completions,
        "logprobs": None,
        "env_mask": [[int(i % 5 > 0 or j % 2) for j in range(len(ids))] for i, ids in enumerate(completions)],
    }


@pytest.fixture
def train(make_trainer):
    """`train(**config)`: the trainer after some steps, the change of its weights and its tokens run by step."""

    def run(base=None, **config):
        defaults = {"max_steps": 1, "optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0.0}
        config = defaults | BATCH | {"lr_scheduler_type": "constant"} | config
        peft = {"peft_config": config.pop("peft_config")} if "peft_config" in config else {}
        torch.manual_seed(0)
        trainer = make_trainer(base=base, reward_funcs=paid, trainer={"rollout_func": rollout, **peft}, **config)
        torch.manual_seed(1)
        weights = [p for p in trainer.model.parameters() if p.requires_grad]
        if peft:  # from zero, half of an adapter has no gradient
            for p in weights:
                torch.nn.init.normal_(p, std=0.02)
        before = torch.cat([p.detach().flatten().clone() for p in weights])
        shapes = []
        hook = lambda module, inputs, output: shapes.append(tuple(inputs[0].shape))  # noqa: E731
        trainer.model.get_input_embeddings().register_forward_hook(hook)
        trainer.train()
        return trainer, torch.cat([p.detach().flatten() for p in weights]) - before, shapes

    return run


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


@pytest.mark.parametrize("case", CASES)
def test_same_weights_as_row_by_row_with_padding(train, distance, case):
    trainer, fast, shapes = train(**CASES[case])
    _, slow, wide = train(**(OFF | CASES[case] if "max_tokens" not in str(CASES[case]) else OFF))
    assert slow.norm() > 1e-3
    assert distance(fast, slow) < 1e-5
    positions = [sum(rows * width for rows, width in some) for some in (shapes, wide)]
    assert positions[0] < 0.8 * positions[1]
    if case in ("dapo", "much room"):
        assert len(shapes) < len(wide)
        assert trainer.state.log_history[0]["gbpo/rows_run"] < 0.75
    if case in ("KL", "entropy bonus", "adaptive entropy"):
        assert trainer.state.log_history[0]["gbpo/rows_run"] == 1


def test_same_weights_as_trl(train, distance, grpo_end):
    """The end of the family whose gradient is GRPO's, beside TRL's own trainer and the baseline without padding."""
    config = {"num_iterations": 2, "max_steps": 4, "learning_rate": 0.1}
    _, ours, shapes = train(**config, **grpo_end)
    trl, theirs, wide = train(algorithm="grpo", **config)
    _, trimmed, narrow = train(algorithm="grpo", base=BaseTrainer, **config)
    assert type(trl).__mro__[0].__module__.startswith("trl")
    assert distance(ours, theirs) < 1e-5 and distance(trimmed, theirs) < 1e-5
    tokens = [sum(rows * width for rows, width in some) for some in (shapes, narrow, wide)]
    assert tokens[0] < tokens[1] < tokens[2]
    assert len(narrow) >= len(wide)  # prompts that are run apart


@pytest.mark.parametrize("switch", [name for name in SPEEDUPS if name not in ("pack_rows", "share_prompts")])
def test_each_switch_turns_one_thing_off(train, distance, without, switch):
    config = {"num_iterations": 2, "max_steps": 2}
    _, fast, shapes = train(**config)
    _, one_off, more = train(**config, **without(switch))
    assert distance(fast, one_off) < 1e-5
    assert sum(rows * width for rows, width in shapes) < sum(rows * width for rows, width in more)


TWO_UPDATES = {"gradient_accumulation_steps": 2, "steps_per_generation": 4}


def test_old_log_probs_are_computed_for_the_rows_of_later_steps_that_are_run(train, without):
    config = TWO_UPDATES | {"max_steps": 2}
    trainer, _, shapes = train(**config, **without("share_prompts"))
    run = [16 * trainer.state.log_history[0]["gbpo/rows_run"]]
    _, _, every = train(**config, **without("share_prompts", "reuse_first_pass"))
    for some in (shapes, every):
        run.append(sum(rows for rows, _ in some) - run[0])
    with_signal, later, all_rows = run
    assert 0 < later <= min(8, with_signal) and all_rows == 16


def test_a_generation_drawn_anew_in_its_middle_knows_which_step_is_first(make_trainer):
    """After the resume of a checkpoint without completions: the step that comes now has the current weights."""
    trainer = make_trainer(reward_funcs=paid, trainer={"rollout_func": rollout}, **(BATCH | TWO_UPDATES))
    trainer.model.train()
    trainer._step = 2
    trainer._prepare_inputs([{"prompt": f"{i // 4}+1="} for i in range(16)])
    known = [[one.old_logps is not None for one in passes] for passes in trainer._buffered_inputs]
    assert all(all(some) for some in known[:2]) and not any(any(some) for some in known[2:])
    assert sum(map(len, known[:2])) and sum(map(len, known[2:]))


def test_packed_rows_are_the_same_rows(train, distance, without, monkeypatch):
    """The masks that transformers builds from positions stand in for FlashAttention, which tells rows apart by them."""
    config = {"num_iterations": 2, "max_steps": 2, "beta": 0.1, "learning_rate": 0.1}
    _, padded, _ = train(**config)
    monkeypatch.setattr("gbpo.trainer.passes.capabilities.packs", lambda config: True)
    trainer, packed, shapes = train(**config)
    assert "pack_rows" in trainer.speedups and all(rows == 1 for rows, _ in shapes)
    assert distance(packed, padded) < 1e-5
    _, unpacked, shapes = train(**config, **without("pack_rows"))
    assert torch.equal(unpacked, padded) and any(rows > 1 for rows, _ in shapes)


def test_rotary_embeddings_that_depend_on_the_width_keep_it(train, monkeypatch):
    monkeypatch.setattr("gbpo.trainer.passes.capabilities.depends_on_width", lambda config: True)
    _, _, shapes = train(num_iterations=2)
    _, _, wide = train(num_iterations=2, exact_speedups=["arrange_rows"])
    assert {width for _, width in shapes} == {width for _, width in wide} and len({width for _, width in wide}) == 1


def test_a_step_without_signal_is_a_zero_gradient_on_one_row(train):
    """A gradient of None would keep the optimiser from moving by its moments, as it does for TRL."""
    trainer, change, shapes = train(reward_weights=[0.0])
    assert change.abs().max() == 0 and len(shapes) == 1 and shapes[0][0] == 1
    row = trainer.state.log_history[0]
    assert row["gbpo/rows_run"] == 0 and row["grad_norm"] == 0
    assert "entropy" not in row  # nothing was run that could tell


def test_metrics_are_those_of_all_rows_where_all_are_run(train, without):
    """Pooled over the optimiser step, whichever rows share a pass."""
    config = {"num_iterations": 2, "max_steps": 2, "learning_rate": 0.1}
    left_out = (["skip_zero_signal"], ["skip_zero_signal", "arrange_rows"])
    rows = [train(**config, **without(*names))[0].state.log_history for names in left_out]
    for one, other in zip(*rows, strict=True):
        for name in one.keys() & other.keys():
            if name.startswith(("gbpo/", "clip_ratio/", "entropy", "loss", "grad_norm")):
                assert one[name] == pytest.approx(other[name], rel=1e-4, abs=1e-6), name


def test_rows_never_leave_their_optimiser_step(make_trainer):
    trainer = make_trainer(
        reward_funcs=paid, trainer={"rollout_func": rollout}, **(BATCH | {"steps_per_generation": 8})
    )
    seen = []
    planned = trainer._planned

    def keep(plan, micro_batches, slot):
        passes = planned(plan, micro_batches, slot)
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


def test_where_padding_is_left_to_trl():
    assert has_rotary_embeddings(Qwen2Config()) and not has_rotary_embeddings(GPT2Config())
    long = Phi3Config(
        attn_implementation="sdpa",
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 1e4,
            "short_factor": [1.0] * 48,
            "long_factor": [2.0] * 48,
            "original_max_position_embeddings": 4096,
        },
    )
    assert (
        depends_on_width(long)
        and not depends_on_width(Qwen2Config())
        and not shares(long)
        and shares(Phi3Config(attn_implementation="sdpa"))
    )
    assert not packs(Qwen2Config(attn_implementation="sdpa"))
    assert packs(Qwen2Config(attn_implementation="flash_attention_2"))
