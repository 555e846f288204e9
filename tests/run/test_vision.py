"""A run with images: what the dry run says, evaluation in training, the saved processor, and what is refused."""

import json
from pathlib import Path

import pytest
from transformers import AutoConfig

from gbpo.run import train
from gbpo.run.models.processors import load_processor
from gbpo.run.models.tiny_vision import tiny_qwen_vl

RECIPES = Path(__file__).parents[2] / "recipes"


def flags(model, *more):
    given = {"dataset_kwargs": "{size: 64}", "max_steps": 2, "logging_steps": 1, "model_name_or_path": model}
    return [str(RECIPES / "tiny_vision.yaml"), *(f"--{name}={value}" for name, value in given.items()), *more]


def test_the_dry_run_counts_the_vision_tower_and_says_which_speedups_act(vision_model, vision_processor, capsys):
    train.main(flags(vision_model, "--dry_run=true"))
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    tower = sum(parameter.numel() for parameter in tiny_qwen_vl(vision_processor.tokenizer).model.visual.parameters())
    assert f"vision tower {tower:,} of the parameters, {tower:,} trained" in lines
    assert "trim_padding off: TRL's forward pass runs rows with images" in lines
    assert "skip_zero_signal on: rows whose loss is exactly zero are not run" in lines
    # the prompt has 17 characters, 3 special tokens, and 4 tokens of the image between a begin and an end
    assert any("longest prompt 26 tokens" in line for line in lines)


def test_the_dry_run_says_what_an_adapter_trains_of_the_vision_tower(vision_model, capsys):
    adapter = ["--use_peft=true", "--lora_r=2"]
    train.main(flags(vision_model, "--dry_run=true", *adapter, "--lora_target_modules", "q_proj", "v_proj"))
    assert "of the parameters, frozen" in " ".join(capsys.readouterr().out.split())
    train.main(flags(vision_model, "--dry_run=true", *adapter, "--lora_target_modules", "all-linear"))
    assert "frozen" not in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_a_run_evaluates_in_training_and_saves_its_processor(vision_model, vision_processor, tmp_path, capsys):
    output = tmp_path / "run"
    train.main(
        flags(
            vision_model,
            *("--eval_strategy=steps", "--eval_steps=2", "--per_device_eval_batch_size=64"),
            f"--output_dir={output}",
        )
    )
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert any("eval_reward" in row for row in rows)
    assert "Exact speed-ups: skip_zero_signal, reuse_first_pass." in capsys.readouterr().out
    processor = load_processor(str(output / "model"), AutoConfig.from_pretrained(output / "model"))
    assert processor.chat_template == vision_processor.chat_template
    assert processor.image_processor.size == vision_processor.image_processor.size
    assert processor.tokenizer.get_vocab() == vision_processor.tokenizer.get_vocab()
