"""`torch_compile` by the tiny recipe, code generation included: the losses of one generation and the saved weights."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from gbpo.run import train

ROOT = Path(__file__).parents[2]


def two_steps(output, *flags):
    """Losses and gradient norms of two optimiser steps, and the saved model."""
    short = [*"--max_steps 2 --logging_steps 1 --per_device_train_batch_size 32 --target_baseline exact".split()]
    train.main([str(ROOT / "recipes" / "tiny_math.yaml"), "--output_dir", str(output), *short, *flags])
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    model = AutoModelForCausalLM.from_pretrained(output / "model")
    return [value for row in rows for value in (row["loss"], row["grad_norm"])], model


def test_the_compiler_changes_no_loss(tmp_path):
    """Losses and gradient norms to a relative 1e-5, weights after two steps of 3e-4 with Adam to 3e-5.

    Adam divides a gradient by its size, so rounding of a small gradient becomes up to 1e-5 of a weight.

    With the exact target: under the median one the tied completions have ρ* = 1 and start at the kink of their loss,
    where the last bit of ρ decides the sign of their gradient.
    """
    expected, plain = two_steps(tmp_path / "plain")
    counters = torch._dynamo.utils.counters
    assert counters["frames"]["ok"] == 0
    actual, compiled = two_steps(tmp_path / "compiled", "--torch_compile", "true")
    assert counters["frames"]["ok"] > 0
    assert actual == pytest.approx(expected, rel=1e-5) and len(actual) == 4
    for a, b in zip(compiled.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=3e-5)
