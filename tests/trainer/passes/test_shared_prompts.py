"""Shared prompts give the same log-probs, entropies and gradients as a prompt that is run with each completion."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from torch.utils._python_dispatch import TorchDispatchMode
from trl import GRPOTrainer

from gbpo.trainer.passes.speedups import Speedups
from rollouts import random_rollout, token_sum

WIDTH, COMPLETION = 15, 8  # columns of prompts and completions
LONGEST = 6  # tokens of a completion


@pytest.fixture
def rows():
    """Ids and mask of 12 shuffled rows: prompts of 1, 15 and 9 tokens, each with 4 completions of 1 to 6 tokens."""
    rng = torch.Generator().manual_seed(0)
    prompts = torch.randint(6, 100, (3, WIDTH), generator=rng)
    prompt_mask = (torch.arange(WIDTH) >= WIDTH - torch.tensor([[1], [15], [9]])).long()
    order = torch.randperm(12, generator=rng)
    lengths = torch.randint(1, LONGEST + 1, (12, 1), generator=rng)
    lengths[0] = LONGEST
    ids = torch.cat([prompts.repeat_interleave(4, 0), torch.randint(6, 100, (12, COMPLETION), generator=rng)], 1)
    mask = torch.cat([prompt_mask.repeat_interleave(4, 0), (torch.arange(COMPLETION) < lengths).long()], 1)
    return ids[order], mask[order]


def recorded(model):
    """A list that records rows and width of every later pass, and the hook that fills it."""
    run = []
    see = lambda module, inputs, output: run.append(tuple(inputs[0].shape))  # noqa: E731
    return run, model.get_input_embeddings().register_forward_hook(see)


@pytest.fixture
def scored(rows):
    """`scored(trainer, ids, mask)` → log-probs, entropies, the gradient of a random sum of both, and the passes."""

    def score(trainer, ids=rows[0], mask=rows[1]):
        run, hook = recorded(trainer.model)
        trainer.model.zero_grad()
        logps, entropies, _ = trainer._get_per_token_logps_and_entropies(
            trainer.model, ids, mask, COMPLETION, compute_entropy=True
        )
        weights = torch.randn(2, *logps.shape, generator=torch.Generator().manual_seed(1)).to(logps)
        (weights[0] * logps + weights[1] * entropies).mul(mask[:, -COMPLETION:]).sum().backward()
        hook.remove()
        gradient = torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None])
        inside = mask[:, -COMPLETION:].bool()
        return logps.detach()[inside], entropies.detach()[inside], gradient, run

    return score


@pytest.mark.parametrize("case", ["qwen", "sliding windows", "eager attention", "LoRA"])
def test_same_scores_and_gradient_as_trl(make_trainer, save_model, scored, distance, case):
    options = {
        "sliding windows": {"model": save_model("gemma")},
        "eager attention": {"model_init_kwargs": {"attn_implementation": "eager"}},
        "LoRA": {"trainer": {"peft_config": LoraConfig(target_modules="all-linear", r=4, lora_dropout=0.0)}},
    }.get(case, {})
    trainer = make_trainer(**options)
    if case == "LoRA":  # one matrix of an adapter starts at 0, so the other has no gradient
        for p in trainer.model.parameters():
            if p.requires_grad:
                torch.nn.init.normal_(p, std=0.02)
    *ours, run = scored(trainer)
    trainer.scorer = None
    *trl, alone = scored(trainer)
    assert run == [(3, WIDTH - 1), (12, LONGEST + 1)] and alone == [(12, WIDTH + COMPLETION)]
    for one, other in zip(ours, trl, strict=True):
        assert one.norm() > 1e-3 and distance(one, other) < 2e-6


@pytest.mark.parametrize("shares", [True, False])
def test_with_few_shapes_the_scores_are_the_same(make_trainer, scored, distance, monkeypatch, shares):
    """Widths are rounded to powers of two here, so that the rounding acts on short rows."""
    monkeypatch.setattr("gbpo.trainer.passes.layout._WIDTHS_PER_DOUBLING", 1)
    trainer = make_trainer()
    trainer.scorer = replace(trainer.scorer, few_shapes=True, share=shares)
    *ours, run = scored(trainer)
    trainer.scorer = None
    *trl, _ = scored(trainer)
    assert run == ([(3, WIDTH - 1), (12, 8)] if shares else [(12, 32)])
    for one, other in zip(ours, trl, strict=True):
        assert one.norm() > 1e-3 and distance(one, other) < 2e-6


def test_prompts_that_differ_only_in_padding_are_distinguished(make_trainer, scored, distance):
    """A prompt may begin with the padding token. It differs from a shorter prompt with the same end."""
    trainer = make_trainer()
    ids = torch.full((4, WIDTH + COMPLETION), trainer.processing_class.pad_token_id)
    ids[:, WIDTH - 8 :] = torch.randint(6, 100, (4, 8 + COMPLETION), generator=torch.Generator().manual_seed(0))
    ids[1:, :WIDTH] = ids[0, :WIDTH]
    mask = torch.ones_like(ids)
    mask[:2, : WIDTH - 8] = 0
    *ours, run = scored(trainer, ids, mask)
    trainer.scorer = replace(trainer.scorer, share=False)
    *alone, _ = scored(trainer, ids, mask)
    assert run[0] == (2, WIDTH - 1)
    for one, other in zip(ours, alone, strict=True):
        assert distance(one, other) < 1e-5


@pytest.mark.parametrize(
    "case",
    [
        "of one token",
        "all different",
        "of two completions and short",
        "switched off",
        "pad to a multiple",
        "absolute positions",
    ],
)
def test_prompts_that_are_not_shared(make_trainer, save_model, scored, rows, case):
    ids, mask = (part.clone() for part in rows)
    options = {"pad to a multiple": {"pad_to_multiple_of": 4}, "absolute positions": {"model": save_model("gpt2")}}
    trainer = make_trainer(**options.get(case, {}))
    if case == "of one token":
        mask[:, : WIDTH - 1] = 0
    if case == "all different":
        ids[:, WIDTH - 3] = torch.arange(6, 18)
    if case == "of two completions and short":  # sharing would save 1 of 16 tokens
        ids, mask = ids[:2], mask[:2]
        ids[1, :WIDTH] = ids[0, :WIDTH]
        mask[:], mask[:, : WIDTH - 2] = 1, 0
    if case == "switched off":
        trainer.scorer = replace(trainer.scorer, share=False)
    *_, run = scored(trainer, ids, mask)
    assert [count for count, _ in run] == [len(ids)]


def test_with_gradient_checkpointing_prompts_are_not_shared(make_trainer, scored, distance):
    trainer = make_trainer()
    *expected, _ = scored(trainer)
    trainer.model.train()
    trainer.model.activation_checkpointing_enable()
    *ours, run = scored(trainer)
    assert (3, WIDTH - 1) not in run
    for one, other in zip(ours, expected, strict=True):
        assert distance(one, other) < 1e-5


@pytest.mark.sweep
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"beta": 0.1},
        {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4, "steps_per_generation": 8},
        {"importance_sampling_level": "sequence", "loss_type": "grpo"},
        # Prompts are shared only in passes without gradients. With the median baseline, a row at the median has ratio 1
        # and target 1, so rounding of its old log-probs would decide the sign of its gradient; "mean" has no such rows.
        {"activation_checkpointing": True, "left_out": ["reuse_first_pass"], "target_baseline": "mean"},
    ],
    ids=str,
)
def test_training_is_the_same(make_trainer, distance, without, config):
    """Two generations with two updates each."""
    config = dict(config)
    left_out = config.pop("left_out", [])
    updates = {"steps_per_generation": 2, "num_iterations": 1, "max_steps": 4, "optim": "sgd", "learning_rate": 0.1}
    changes, prompts_run, tokens = [], [], []
    for share in (True, False):
        trainer = make_trainer(
            reward_funcs=token_sum,
            dataset=Dataset.from_dict({"prompt": [f"{i}+{10**i}+{10**12}=" for i in range(8)]}),
            trainer={"rollout_func": random_rollout(1, 2, 3, 4, 5)},
            **updates | config | without(*left_out, *([] if share else ["share_prompts"])),
        )
        before = torch.cat([p.detach().flatten().clone() for p in trainer.model.parameters()])
        run = []
        trainer.model.register_forward_hook(
            lambda module, args, kwargs, output, run=run: run.append((kwargs["input_ids"].numel(), "labels" in kwargs)),
            with_kwargs=True,
        )
        trainer.train()
        changes.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]) - before)
        prompts_run.append(sum(not scored for _, scored in run))
        tokens.append(sum(count for count, _ in run))
    assert changes[1].norm() > 1e-3 and distance(*changes) < 1e-5
    assert prompts_run[0] and not prompts_run[1] and tokens[0] < tokens[1]
    if "gradient_accumulation_steps" in config:  # TRL puts rows of one prompt into different micro-batches
        assert tokens[0] < 0.7 * tokens[1]


def test_with_dropout_prompts_are_not_shared(make_trainer, scored):
    peft = {"peft_config": LoraConfig(target_modules="all-linear", r=4, lora_dropout=0.1)}
    *_, run = scored(make_trainer(trainer=peft))
    assert [count for count, _ in run] == [12]


@pytest.mark.parametrize("case", ["qwen", "sliding windows", "LoRA", "checkpointing"])
def test_generation_samples_the_same_tokens(make_trainer, save_model, case):
    options = {
        "sliding windows": {"model": save_model("gemma")},
        "LoRA": {"trainer": {"peft_config": LoraConfig(target_modules="all-linear", r=4, lora_dropout=0.0)}},
        "checkpointing": {"activation_checkpointing": True},
    }.get(case, {})
    trainer = make_trainer(**options, max_completion_length=12)
    trainer.model.train()
    if case == "checkpointing":
        trainer.model.activation_checkpointing_enable()
    prompts = [trainer.processing_class(text)["input_ids"] for text in ("7", "123+456+789=", "98765+4=")]
    prompts = [prompts[i] for i in (0, 1, 2, 1, 0, 2, 2, 1)]
    first = []
    run, _ = recorded(trainer.model)
    for speedups in (trainer.speedups, Speedups({"share_prompts": "left out"})):
        trainer.speedups = speedups
        torch.manual_seed(0)
        run.clear()
        first.append((trainer._generate_single_turn(prompts, None, {}, 8)[0], run[:2]))
        assert "generate" not in vars(trainer.model)
    (ours, shared), (trl, alone) = first
    assert ours == trl and len({str(row) for row in ours}) > 2 and max(map(len, ours)) == 12
    assert shared == [(3, 11), (8, 1)] and alone == [(8, 12), (8, 1)]


@pytest.mark.parametrize("conversational", [False, True])
def test_each_prompt_is_tokenized_once(make_trainer, monkeypatch, conversational):
    trainer = make_trainer()
    prompts = [text for text in ("1+1=", "23+4=", "1+1=", "5=") for _ in range(3)]
    method = "__call__"
    if conversational:
        prompts, method = [[{"role": "user", "content": text}] for text in prompts], "apply_chat_template"
    expected = GRPOTrainer._tokenize_prompts(trainer, prompts)
    plain, texts = getattr(type(trainer.processing_class), method), []

    def counted(tokenizer, *args, **kwargs):
        texts.append(len(kwargs["conversation" if conversational else "text"]))
        return plain(tokenizer, *args, **kwargs)

    monkeypatch.setattr(type(trainer.processing_class), method, counted)
    tokenized = trainer._tokenize_prompts(prompts)
    assert texts[0] == 4  # the chat template calls the tokenizer again
    assert tokenized == expected
    assert len({id(ids) for ids in tokenized[0]}) == len(prompts)


@pytest.mark.parametrize(
    ("kwargs", "prompts"),
    [
        ({"cache_implementation": "static"}, ["123+456+789="] * 4),
        ({"num_beams": 2}, ["123+456+789="] * 4),
        ({"use_cache": False}, ["123+456+789="] * 4),
        ({}, ["7"] * 4),
        ({}, ["123+456+789=", "123+456+788=", "123+456+787=", "123+456+786="]),
    ],
    ids=str,
)
def test_generations_that_do_not_share_prompts(make_trainer, kwargs, prompts):
    trainer = make_trainer(generation_kwargs=kwargs)
    run, _ = recorded(trainer.model)
    trainer._generate_single_turn([trainer.processing_class(prompt)["input_ids"] for prompt in prompts], None, {}, 4)
    assert run[0] == (4 * kwargs.get("num_beams", 1), len(prompts[0]))


def test_a_generate_of_another_library_is_not_replaced(make_trainer):
    trainer = make_trainer()
    theirs = trainer.model.generate
    trainer.model.generate = lambda **inputs: theirs(**inputs)
    mine = trainer.model.generate
    trainer._generate_single_turn([trainer.processing_class("123+456+789=")["input_ids"]] * 4, None, {}, 4)
    assert trainer.model.generate is mine


class Casts(TorchDispatchMode):
    """Counts how often each weight is cast to another type."""

    def __init__(self, model):
        super().__init__()
        self.counts = Counter()
        self._names = {weight.data_ptr(): name for name, weight in model.named_parameters()}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket.__name__ == "_to_copy" and args[0].data_ptr() in self._names:
            self.counts[self._names[args[0].data_ptr()]] += 1
        return function(*args, **(kwargs or {}))


def test_each_weight_is_cast_once_for_a_pass(make_trainer, rows):
    """The prompts and the completions of a pass are run in one region of autocast, which keeps the cast weights."""
    trainer = make_trainer(bf16=True)
    run, hook = recorded(trainer.model)
    ids, mask = rows
    with Casts(trainer.model) as casts:
        trainer.scorer.score_in_batches(trainer.model, ids, mask, COMPLETION, len(ids), entropy=True)
    hook.remove()
    assert len(run) == 2, "the prompts, then the completions"
    linear = {name: count for name, count in casts.counts.items() if "proj" in name}
    assert len(linear) >= 7 and set(linear.values()) == {1}
