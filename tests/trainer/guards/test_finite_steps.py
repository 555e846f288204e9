"""Steps that are not finite: skipped as if they had not been, named, and in the end the reason to stop."""

import itertools
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback

from gbpo.shared.stopping import TrainingStopped
from gbpo.trainer.base import BaseTrainer

SCRIPT = Path(__file__).with_name("finite_step.py")


def reward(completions, **kwargs):
    return [float(sum(map(ord, text)) % 3) for text in completions]


@pytest.fixture
def make(make_trainer, without):
    def make(algorithm="gbpo", **config):
        defaults = {"max_steps": 6, "steps_per_generation": 2, "num_iterations": 2, "lr_scheduler_type": "constant"}
        defaults |= without("arrange_rows", "skip_zero_signal")  # the rows that TRL would run, in its order
        base = BaseTrainer if algorithm == "grpo" else None
        return make_trainer(algorithm, reward_funcs=reward, base=base, **(defaults | config))

    return make


def spoil(trainer, steps, row=3):
    """From the embedding on, one row of the training batch is not a number in these steps."""

    def hook(module, inputs, output):
        if torch.is_grad_enabled() and trainer.state.global_step in steps:
            output = output.clone()
            output[row] = float("nan")
        return output

    trainer.model.get_input_embeddings().register_forward_hook(hook)


class Record(TrainerCallback):
    """The weights before training and after each optimiser step."""

    def __init__(self):
        self.weights = []

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.weights.append(torch.cat([p.detach().flatten().clone() for p in model.parameters()]))

    on_step_end = on_train_begin


def train(trainer):
    """Whether each step changed the weights."""
    record = Record()
    trainer.add_callback(record)
    trainer.train()
    return [not torch.equal(a, b) for a, b in itertools.pairwise(record.weights)]


@pytest.mark.parametrize("algorithm", ["gbpo", "grpo"])
def test_a_loss_that_is_not_finite_is_skipped_and_its_row_named(make, caplog, algorithm):
    trainer = make(algorithm)
    spoil(trainer, steps={1, 4})
    with caplog.at_level(logging.WARNING):
        assert train(trainer) == [True, False, True, True, False, True]
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())
    assert [row["skipped_steps"] for row in trainer.state.log_history[:-1]] == [0, 1, 0, 0, 1, 0]
    lines = [r.message for r in caplog.records if "The step is skipped" in r.message]
    assert len(lines) == 2
    assert "Optimiser step 2, rank 0: log-probabilities not finite for prompt '" in lines[0]
    inputs = trainer._buffered_inputs[0]  # step 5 took the first half of the second generation
    inputs = inputs[0] if algorithm == "gbpo" else inputs  # its only pass
    inputs = vars(inputs) if algorithm == "gbpo" else inputs
    completion = trainer.processing_class.decode(inputs["completion_ids"][3][inputs["completion_mask"][3].bool()])
    assert f"completion {completion!r}" in lines[1]


def test_moments_of_the_optimiser_do_not_see_it(make):
    states = []
    for steps in (2, 1):
        trainer = make(max_steps=steps, num_iterations=4)
        spoil(trainer, steps={1})
        train(trainer)
        states.append(trainer.optimizer.state_dict()["state"])
    assert states[0].keys() == states[1].keys()
    for i in states[0]:
        for name in states[0][i]:
            assert torch.equal(states[0][i][name], states[1][i][name]), name


def test_a_gradient_alone_that_is_not_finite(make, caplog):
    trainer = make()
    parameter = next(trainer.model.parameters())
    parameter.register_hook(lambda g: g * (float("inf") if trainer.state.global_step == 3 else 1.0))
    with caplog.at_level(logging.WARNING):
        assert train(trainer) == [True, True, True, False, True, True]
    (line,) = [r.message for r in caplog.records if "The step is skipped" in r.message]
    assert "the gradient is not finite, but this rank's log-probabilities are" in line
    assert "The completion with the largest |log ratio|" in line


def test_an_advantage_that_is_not_finite_is_named(make, caplog):
    trainer = make(max_steps=1)
    generate = trainer._generate_and_score_completions

    def spoilt(inputs):
        batch = generate(inputs)
        batch["advantages"][:] = float("inf")
        return batch

    trainer._generate_and_score_completions = spoilt
    with caplog.at_level(logging.WARNING):
        assert train(trainer) == [False]
    assert "advantages not finite for prompt" in caplog.text


def test_after_five_in_a_row_the_run_ends_with_the_reason(make):
    trainer = make(max_steps=20, save_strategy="steps", save_steps=3)
    spoil(trainer, steps={1, 2, *range(4, 20)})
    with pytest.raises(TrainingStopped, match="5 optimiser steps in a row, the last of them 9. .*learning_rate"):
        trainer.train()
    assert sorted(path.name for path in Path(trainer.args.output_dir).iterdir() if "-" in path.name) == [
        "checkpoint-3",
        "checkpoint-6",
    ]


def test_fp16_is_left_to_the_gradient_scaler(make, monkeypatch):
    trainer = make(max_steps=1)
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu")
    trainer.model.train()
    trainer._get_grad_norm(trainer.model, torch.tensor(float("inf")))
    assert trainer._metrics["train"]["skipped_steps"] == [0.0]


def test_two_processes_skip_together(random_model, tmp_path):
    """What is wrong on the second rank alone is skipped on both, and named by the second."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, str(SCRIPT), random_model, str(tmp_path)], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert first["changed"] == second["changed"] == [True, False, True]
    assert torch.equal(first["weights"], second["weights"]) and first["weights"].isfinite().all()
    assert "Optimiser step 2, rank 1: log-probabilities not finite" in done.stderr
    assert "Optimiser step 2, rank 0: the gradient is not finite, but this rank's" in done.stderr
