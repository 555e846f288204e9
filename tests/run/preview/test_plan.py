"""The dry run: its plan is compared to a real trainer, and it writes no files."""

import sys
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, Qwen2ForCausalLM

from gbpo import GBPOTrainer
from gbpo.run import train
from gbpo.run.data.loading import load
from gbpo.run.data.prompts import PromptFormat
from gbpo.run.models.description import describe
from gbpo.run.preview import plan
from gbpo.run.recipe.parsing import parse
from rollouts import equal_rewards

ROOT = Path(__file__).parents[3]
TINY = str(ROOT / "recipes" / "tiny_math.yaml")


def parsed(model, *flags):
    return parse([TINY, "--model_name_or_path", model, *map(str, flags)])


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        # 2,048 prompts, 32 a generation: 64 generations an epoch, 2 updates on each
        (["--max_steps", 600], plan.StepPlan(32, 256, 2, 128, 600, 600 / 128)),
        (["--max_steps", -1, "--num_train_epochs", 1], plan.StepPlan(32, 256, 2, 128, 128, 1)),
        # 3 × 2 micro-batches on each generation, 4 accumulated: 64 × 6 / 4 = 96 updates an epoch
        (
            ["--max_steps", -1, "--num_train_epochs", 2, "--num_iterations", 3, "--gradient_accumulation_steps", 4],
            plan.StepPlan(32, 256, 1.5, 512, 192, 2),
        ),
        # 40 prompts fill one generation of 32; the other 8 are left out
        (
            ["--max_steps", -1, "--num_train_epochs", 2, "--dataset_kwargs", "{size: 40}"],
            plan.StepPlan(32, 256, 2, 128, 4, 2),
        ),
    ],
    ids=str,
)
def test_plan(model, flags, expected, tmp_path):
    parsed_recipe = parsed(model, "--output_dir", tmp_path, *flags)
    train_set, _ = load(parsed_recipe.run, evaluation=False)
    found = plan.StepPlan.of(parsed_recipe, len(train_set))
    assert found == expected
    # the trainer counts the same number of steps
    tokenizer = describe(model, parsed_recipe).tokenizer
    trainer = GBPOTrainer(
        model,
        equal_rewards,
        parsed_recipe.training,
        train_dataset=PromptFormat.of(parsed_recipe).format(train_set, tokenizer),
        processing_class=tokenizer,
    )
    assert found.steps == trainer.set_initial_training_values(trainer.args, trainer.get_train_dataloader())[-1]


@pytest.mark.slow
def test_dry_run_prints_a_page_and_writes_nothing(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def never(*args, **kwargs):
        raise AssertionError("a model was about to be loaded")

    monkeypatch.setattr(train, "train", never)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", never)
    monkeypatch.setattr(Qwen2ForCausalLM, "from_pretrained", never)
    train.main([TINY, "--model_name_or_path", model, "--dry_run", "true", "--num_generations", "2"])
    page = capsys.readouterr().out
    for words in (
        "128 prompts × 2 completions = 256",
        "600 optimiser steps = 300 generations",
        "longest prompt 9 tokens",
        "LM head",
        " exact",
        "on this machine, all 1,664 tokens of an optimiser step fit in one pass",
        "the reference answers of 256 rows grade themselves as correct",
        "transformers 5.",
        "num_generations=2: a group only shows",
        "Nothing was loaded, trained or written",
    ):
        assert words in page
    assert len(page.splitlines()) <= 60 and max(map(len, page.splitlines())) <= 110
    assert list(tmp_path.iterdir()) == []


def test_dry_run_before_the_model_is_built(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    train.main([TINY, "--dry_run", "true"])
    assert "unknown: builtin:tiny_math is not built yet" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_dry_run_of_two_processes_prints_once(launch, model, tmp_path):
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    done = launch(TINY, "--model_name_or_path", model, "--dry_run", "true", launcher=torchrun, timeout=360)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("memory per rank") == 1
    assert "2 rank(s) × 128 per micro-batch × 2 micro-batches (cpu, DDP)" in done.stdout
    assert not (tmp_path / "runs").exists()


def test_the_dry_run_says_what_difficulty_does(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    train.main([TINY, "--dry_run", "true", "--difficulty", "{low: 0.2, high: 0.7}"])
    page = " ".join(capsys.readouterr().out.split())
    assert "prompts with a solve rate of 0.2 to 0.7 are preferred, and 10% of each generation is drawn" in page
    train.main([str(ROOT / "recipes" / "tiny_curriculum.yaml"), "--dry_run", "true", "--difficulty", "null"])
    assert "solve rate" not in capsys.readouterr().out
