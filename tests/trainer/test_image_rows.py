"""Rows with different numbers and sizes of images: the steps are those of TRL's trainer, and a run resumes exactly."""

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig

import pictures
from gbpo.trainer.base import BaseTrainer
from gbpo.trainer.passes.batch import IMAGE_KEYS, images_of_rows
from rollouts import text_of

# 16 completions of 4 prompts in 4 micro-batches: 2 optimiser steps, each with 2 micro-batches
BATCH = {
    "num_generations": 4,
    "per_device_train_batch_size": 4,
    "steps_per_generation": 4,
    "gradient_accumulation_steps": 2,
    "num_iterations": 1,
    "optim": "sgd",
    "learning_rate": 1.0,
    "lr_scheduler_type": "constant",
    "max_steps": 2,
    "loss_type": "dapo",
}


@pytest.fixture
def make(make_trainer, vision_model, vision_processor):
    """`make(algorithm, …)`: a trainer on prompts with one, two or three images."""

    def build(algorithm, **config):
        trainer = {"processing_class": vision_processor, **config.pop("trainer", {})}
        return make_trainer(
            algorithm,
            model=vision_model,
            reward_funcs=reward,
            dataset=pictures.rows(),
            trainer=trainer,
            **BATCH | config,
        )

    return build


def reward(completions, prompts, **kwargs):
    """Differs within the groups with two images or more; the completions of the others get the same."""
    several = [sum(part["type"] == "image" for part in prompt[0]["content"]) > 1 for prompt in prompts]
    return [
        float(sum(map(ord, text_of(one))) % 5) if more else 1.0 for one, more in zip(completions, several, strict=True)
    ]


def update(trainer):
    """How the weights change in training."""
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    return torch.cat([(p.detach() - before[name]).flatten() for name, p in trainer.model.named_parameters()])


LORA = {"peft_config": LoraConfig(target_modules="all-linear", r=4, lora_alpha=8, init_lora_weights=False)}


@pytest.mark.slow
@pytest.mark.parametrize("trainer", [{}, LORA], ids=["all weights", "LoRA"])
def test_two_steps_are_those_of_trl(make, grpo_limit, distance, trainer):
    """The second step has old log-probs of its own. Rows without signal are not run, and the others keep their images.

    16 rows are in 4 micro-batches in random order, so a row that got the images of another would change the gradient.
    """
    torch.manual_seed(0)
    expected = update(make("grpo", trainer=dict(trainer)))
    torch.manual_seed(0)
    ours = make("gbpo", trainer=dict(trainer), **grpo_limit)
    actual = update(ours)
    assert expected.norm() > 1e-3 and distance(actual, expected) < 1e-5
    run = [row["gbpo/rows_run"] for row in ours.state.log_history if "gbpo/rows_run" in row]
    assert run and max(run) <= 0.5  # the groups of the prompts 0 and 3 have no signal


def test_the_line_says_which_speedups_act_with_images(make):
    speedups = make("gbpo").speedups
    assert [name for name in ("skip_zero_signal", "reuse_first_pass") if name in speedups] == [
        "skip_zero_signal",
        "reuse_first_pass",
    ]
    for name in ("trim_padding", "arrange_rows", "pack_rows", "share_prompts"):
        assert f"{name} (TRL's forward pass runs rows with images)" in speedups.line()


def test_a_text_only_data_set_keeps_all_speedups(make_trainer, vision_model, vision_processor):
    chats = [[{"role": "user", "content": [{"type": "text", "text": f"{i}+1="}]}] for i in range(8)]
    trainer = make_trainer(
        model=vision_model,
        dataset=Dataset.from_dict({"prompt": chats}),
        trainer={"processing_class": vision_processor},
    )
    assert "trim_padding" in trainer.speedups and "arrange_rows" in trainer.speedups


def generation(trainer):
    """A scored generation of all rows."""
    trainer.model.train()
    return trainer._generate_and_score_completions([row for row in trainer.train_dataset for _ in range(4)])


def test_a_pass_takes_the_images_of_its_rows(make):
    """The rows 9, 2 and 4 have the images of the prompts 2, 0 and 1: three, one and two."""
    trainer = make("gbpo")
    batch = generation(trainer)
    images = {key: batch[key] for key in IMAGE_KEYS if key in batch}
    assert batch["num_images"] == [1] * 4 + [2] * 4 + [3] * 4 + [1] * 4
    taken = images_of_rows(images, [9, 2, 4])
    assert taken["num_images"] == [3, 1, 2]
    inputs = [
        trainer.processing_class.image_processor(images=trainer.train_dataset[row]["images"], return_tensors="pt")
        for row in (2, 0, 1)
    ]
    assert torch.equal(taken["image_grid_thw"], torch.cat([some["image_grid_thw"] for some in inputs]))
    assert torch.equal(taken["pixel_values"], torch.cat([some["pixel_values"] for some in inputs]))
    assert torch.equal(taken["mm_token_type_ids"], batch["mm_token_type_ids"][[9, 2, 4]])


def test_a_pass_moves_its_images_too(make):
    trainer = make("gbpo")
    one = trainer.as_pass(generation(trainer)).to(torch.device("meta"))
    assert one.completion_ids.is_meta and one.images["pixel_values"].is_meta and one.images["image_grid_thw"].is_meta


def test_the_weight_check_scores_each_row_with_its_images(make):
    """The rows that the check keeps give the log-probs that each row gives alone."""
    trainer = make("gbpo")
    rows = trainer._first_micro_batch(generation(trainer))
    logps, mask = trainer._policy_logps(rows), rows["completion_mask"].bool()
    assert len(logps) == 4 and len(rows["num_images"]) == 4
    per_row = [trainer.as_pass(rows | {"rows": [None] * 4}).images]
    for number in range(4):
        alone = {name: value[[number]] for name, value in rows.items() if torch.is_tensor(value) and value.ndim}
        alone |= images_of_rows(per_row[0], [number])
        ids = torch.cat([alone["prompt_ids"], alone["completion_ids"]], dim=1)
        inputs = {key: alone[key] for key in ("pixel_values", "image_grid_thw", "mm_token_type_ids")}
        attention = torch.cat([alone["prompt_mask"], alone["completion_mask"]], dim=1)
        with torch.no_grad():
            logits = trainer.model(input_ids=ids, attention_mask=attention, **inputs).logits
        expected = logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
        width = alone["completion_ids"].size(1)
        torch.testing.assert_close(logps[number][mask[number]], expected[0, -width:][mask[number]], atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize(("algorithm", "trainer"), [("gbpo", {}), ("gbpo", LORA), ("grpo", {})])
def test_a_run_with_images_resumes_bitwise_within_a_generation(make, tmp_path, algorithm, trainer):
    """transformers saves the vision tower under other names than the model's, and by itself would not load it."""
    config = {"max_steps": 4, "save_strategy": "steps", "save_steps": 1, "log_completions": True}
    config |= {"num_completions_to_print": 0, "base": BaseTrainer if algorithm == "grpo" else None}
    config["trainer"] = trainer
    whole = make(algorithm, output_dir=str(tmp_path / "whole"), **config)
    whole.train()
    again = make(algorithm, output_dir=str(tmp_path / "again"), **config)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-1"))  # a generation has two steps
    for (name, value), other in zip(whole.model.named_parameters(), again.model.parameters(), strict=True):
        assert torch.equal(value, other), name
