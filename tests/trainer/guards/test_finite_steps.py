"""Steps whose loss or gradient is not finite are skipped and explained; after five in a row the run ends."""

import itertools
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from transformers import TrainerCallback

import processes
from fakes import pass_of
from gbpo.shared.stopping import TrainingStopped
from gbpo.trainer.base import BaseTrainer
from gbpo.trainer.guards.finite_steps import FiniteSteps
from rollouts import character_sum

SCRIPT = Path(__file__).with_name("finite_step.py")


NAN, INF = float("nan"), float("inf")


def decode(ids):
    return " ".join(map(str, ids))


@pytest.fixture(autouse=True)
def accelerate_state():
    """accelerate's loggers need its state."""
    PartialState(cpu=True)


@pytest.fixture
def one():
    """Two rows: 5 7 → 1 2 3 and 5 8 → 4."""
    one = pass_of([[5, 7], [5, 8]], [[1, 2, 3], [4]], [1.0, -1.0])
    return replace(one, old_logps=torch.zeros(2, 3))


def lines_of(caplog, norm, *passes, **options):
    """The warnings for a step with this gradient norm."""
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        FiniteSteps(decode, **options).skips(norm, passes, step=7)
    return [record.message.removeprefix("[RANK 0] ") for record in caplog.records]


@pytest.mark.parametrize("norm", [None, 0.0, 3.0, torch.tensor(1.0)])
def test_a_finite_norm_is_not_skipped(one, norm, caplog):
    """Only the norm decides. DeepSpeed may give none."""
    assert not FiniteSteps().skips(norm, [(one, torch.full((2, 3), NAN))], step=1)
    assert not caplog.records


@pytest.mark.parametrize("norm", [NAN, INF, -INF, torch.tensor(NAN)])
def test_a_norm_that_is_not_finite_is_skipped(one, norm):
    assert FiniteSteps().skips(norm, [(one, torch.zeros(2, 3))], step=1)


def test_each_completion_at_fault_has_a_line(one, caplog):
    logps = torch.tensor([[0.0, NAN, 0.0], [INF, 0.0, 0.0]])
    assert lines_of(caplog, NAN, (one, torch.zeros(2, 3)), (one, logps), rank=2) == [
        "Optimiser step 7, rank 2: log-probabilities not finite for prompt '5 7', completion '1 2 3'. "
        "The step is skipped.",
        "Optimiser step 7, rank 2: log-probabilities not finite for prompt '5 8', completion '4'. The step is skipped.",
    ]


def test_padding_is_not_at_fault(one, caplog):
    """Row 1 has one token; the others are padding."""
    (line,) = lines_of(caplog, NAN, (one, torch.tensor([[0.0, 0.0, 0.5], [0.0, NAN, NAN]])))
    assert "the gradient is not finite, but this rank's log-probabilities are" in line
    assert "The completion with the largest |log ratio| (0.5): prompt '5 7', completion '1 2 3'" in line


FIELDS = {
    "advantages": (torch.tensor([INF, 1.0]), "advantages"),
    "old_logps": (torch.tensor([[0.0, NAN, 0.0], [0.0, 0.0, 0.0]]), "old log-probabilities"),
    "ref_logps": (torch.tensor([[-INF, 0.0, 0.0], [0.0, 0.0, 0.0]]), "reference log-probabilities"),
    "sampling_logps": (torch.tensor([[0.0, -INF, NAN], [NAN, 0.0, 0.0]]), "vLLM's log-probabilities"),
}


@pytest.mark.parametrize("field", FIELDS)
def test_a_value_that_is_not_finite_is_named(one, caplog, field):
    value, name = FIELDS[field]
    (line,) = lines_of(caplog, NAN, (replace(one, **{field: value}), torch.zeros(2, 3)))
    assert f": {name} not finite for prompt '5 7', completion '1 2 3'" in line


def test_long_texts_are_cut(caplog):
    one = pass_of([[5]], [[123456789] * 20], [1.0])
    (line,) = lines_of(caplog, NAN, (one, torch.full((1, 20), NAN)))
    assert line.count("…") == 1 and "prompt '5'" in line and len(line) < 250


def test_a_rank_without_passes_has_a_line_too(caplog):
    (line,) = lines_of(caplog, NAN)
    assert line.endswith("but this rank's log-probabilities are. The step is skipped.")


def test_only_steps_in_a_row_end_the_run(one):
    guard = FiniteSteps(max_skipped=3)
    passes = [(one, torch.zeros(2, 3))]
    assert [guard.skips(norm, passes, step=1) for norm in (NAN, INF, 1.0, NAN, NAN)] == [True, True, False, True, True]
    with pytest.raises(TrainingStopped, match=r"in 3 optimiser steps in a row, the last of them 6\. .*learning_rate"):
        guard.skips(NAN, passes, step=6)


# --- in a run


@pytest.fixture
def make(make_trainer, without):
    def make(algorithm="gbpo", **config):
        defaults = {"max_steps": 6, "steps_per_generation": 2, "num_iterations": 2, "lr_scheduler_type": "constant"}
        defaults |= without("arrange_rows", "skip_zero_signal")  # run the rows of TRL in its order
        base = BaseTrainer if algorithm == "grpo" else None
        return make_trainer(algorithm, reward_funcs=character_sum, base=base, **(defaults | config))

    return make


def make_nan(trainer, steps, row=3):
    """Make the embeddings of one row of the training batch NaN in these steps."""

    def hook(module, inputs, output):
        if torch.is_grad_enabled() and trainer.state.global_step in steps:
            output = output.clone()
            output[row] = float("nan")
        return output

    trainer.model.get_input_embeddings().register_forward_hook(hook)


class Record(TrainerCallback):
    """Keeps the weights before training and after each optimiser step."""

    def __init__(self):
        self.weights = []

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.weights.append(torch.cat([p.detach().flatten().clone() for p in model.parameters()]))

    on_step_end = on_train_begin


def train(trainer):
    """Train, and return whether each step changed the weights."""
    record = Record()
    trainer.add_callback(record)
    trainer.train()
    return [not torch.equal(a, b) for a, b in itertools.pairwise(record.weights)]


@pytest.mark.parametrize("algorithm", ["gbpo", "grpo"])
def test_a_loss_that_is_not_finite_is_skipped_and_its_row_named(make, caplog, algorithm):
    trainer = make(algorithm)
    make_nan(trainer, steps={1, 4})
    with caplog.at_level(logging.WARNING):
        assert train(trainer) == [True, False, True, True, False, True]
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())
    assert [row["skipped_steps"] for row in trainer.state.log_history[:-1]] == [0, 1, 0, 0, 1, 0]
    lines = [r.message for r in caplog.records if "The step is skipped" in r.message]
    assert len(lines) == 2
    assert "Optimiser step 2, rank 0: log-probabilities not finite for prompt '" in lines[0]
    inputs = trainer._buffered_inputs[0]  # step 5 took the first half of the second generation
    inputs = inputs[0] if algorithm == "gbpo" else inputs  # the only pass of the micro-batch
    inputs = vars(inputs) if algorithm == "gbpo" else inputs
    completion = trainer.processing_class.decode(inputs["completion_ids"][3][inputs["completion_mask"][3].bool()])
    assert f"completion {completion!r}" in lines[1]


def test_a_skipped_step_does_not_change_the_moments_of_the_optimiser(make):
    states = []
    for steps in (2, 1):
        trainer = make(max_steps=steps, num_iterations=4)
        make_nan(trainer, steps={1})
        train(trainer)
        states.append(trainer.optimizer.state_dict()["state"])
    assert states[0].keys() == states[1].keys()
    for i in states[0]:
        for name in states[0][i]:
            assert torch.equal(states[0][i][name], states[1][i][name]), name


def test_a_gradient_that_is_not_finite_with_a_finite_loss(make, caplog):
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

    def with_infinite_advantages(inputs):
        batch = generate(inputs)
        batch["advantages"][:] = float("inf")
        return batch

    trainer._generate_and_score_completions = with_infinite_advantages
    with caplog.at_level(logging.WARNING):
        assert train(trainer) == [False]
    assert "advantages not finite for prompt" in caplog.text


def test_after_five_in_a_row_the_run_ends_with_the_reason(make):
    trainer = make(max_steps=20, save_strategy="steps", save_steps=3)
    make_nan(trainer, steps={1, 2, *range(4, 20)})
    with pytest.raises(TrainingStopped, match="5 optimiser steps in a row, the last of them 9. .*learning_rate"):
        trainer.train()
    assert sorted(path.name for path in Path(trainer.args.output_dir).iterdir() if "-" in path.name) == [
        "checkpoint-3",
        "checkpoint-6",
    ]


def test_with_fp16_the_gradient_scaler_skips_steps(make, monkeypatch):
    trainer = make(max_steps=1)
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu")
    trainer.model.train()
    trainer._get_grad_norm(trainer.model, torch.tensor(float("inf")))
    assert trainer._metrics["train"]["skipped_steps"] == [0.0]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_two_processes_skip_together(random_model, tmp_path, precision):
    """A loss that is NaN on the second rank only is skipped on both, and the second rank names the completion."""
    printed = processes.run_script(SCRIPT, random_model, tmp_path, precision, ranks=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert first["changed"] == second["changed"] == [True, False, True]
    assert torch.equal(first["weights"], second["weights"]) and first["weights"].isfinite().all()
    assert "Optimiser step 2, rank 1: log-probabilities not finite" in printed
    assert "Optimiser step 2, rank 0: the gradient is not finite, but this rank's" in printed
