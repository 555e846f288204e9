"""What only a GPU can show: kernels, rounding, vLLM, memory, speed. `make test-gpu` runs this file on one GPU.

The same tests run on a CPU, except those that need CUDA; these say so.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers.utils import is_flash_attn_2_available

from device import DEVICE, ON_GPU
from gbpo import GBPOConfig, GBPOTrainer
from rollouts import random_rollout, token_sum

ROOT = Path(__file__).parents[2]
needs_cuda = pytest.mark.skipif(not ON_GPU, reason="DID NOT RUN: needs CUDA")
needs_flash = pytest.mark.skipif(not is_flash_attn_2_available(), reason="DID NOT RUN: needs CUDA and flash-attn")
HEAD = {"hidden_size": 128, "head_dim": 64, "num_attention_heads": 2, "num_key_value_heads": 1}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Folder of a tiny untrained model whose heads are wide enough for FlashAttention."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from gbpo.run.models.tiny import character_tokenizer

    folder = tmp_path_factory.mktemp("model")
    tokenizer = character_tokenizer()
    torch.manual_seed(0)
    shape = {"intermediate_size": 256, "num_hidden_layers": 3, "vocab_size": len(tokenizer)}
    Qwen2ForCausalLM(Qwen2Config(**shape, **HEAD)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def update(model, tmp_path):
    """`update(**config)` → the trainer after two optimiser steps on one generation, and the change of its weights."""

    def train(peft_config=None, attention="sdpa", **config):
        torch.manual_seed(0)
        trainer = GBPOTrainer(
            model,
            token_sum,
            GBPOConfig(
                str(tmp_path),
                **DEVICE,
                **{"bf16": False, "activation_checkpointing": False, "target_baseline": "exact"} | config,
                model_init_kwargs={"dtype": "float32", "attn_implementation": attention},
                num_generations=4,
                per_device_train_batch_size=16,
                steps_per_generation=2,
                max_completion_length=64,
                optim="sgd",
                learning_rate=0.3,
                max_steps=2,
                save_strategy="no",
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_dict({"prompt": [f"{i}+1=" for i in range(8)]}),
            rollout_func=random_rollout(1, 3, 9, 20, 33, 64),
            peft_config=peft_config,
        )
        weights = [p for p in trainer.model.parameters() if p.requires_grad]
        before = torch.cat([p.detach().float().flatten().clone() for p in weights])
        torch.manual_seed(0)
        trainer.train()
        return trainer, torch.cat([p.detach().float().flatten() for p in weights]) - before

    return train


def error(found, exact):
    return ((found - exact).norm() / exact.norm()).item()


def test_the_speedups_do_not_change_the_update(update):
    """Rows arranged, skipped and with shared prompts, against TRL's rows, in float32 without TF32."""
    _, exact = update(exact_speedups=["none"])
    trainer, found = update()
    assert trainer.accelerator.device.type == ("cuda" if ON_GPU else "cpu")
    assert exact.norm() > 1e-3 and error(found, exact) < 1e-4


def test_bfloat16_is_close_to_float32(update):
    _, exact = update()
    _, found = update(bf16=True)
    assert 1e-4 < error(found, exact) < 0.1


@needs_flash
@pytest.mark.parametrize("checkpointing", [False, True])
def test_packed_rows_with_flash_attention(update, checkpointing):
    """Measured against float32, rows packed for FlashAttention add no error to that of bfloat16 with sdpa."""
    _, exact = update()
    _, plain = update(bf16=True, exact_speedups=["trim_padding", "arrange_rows", "skip_zero_signal"])
    trainer, packed = update(bf16=True, attention="flash_attention_2", activation_checkpointing=checkpointing)
    assert "pack_rows" in trainer.speedups
    assert error(packed, exact) < 1.5 * error(plain, exact)


def test_a_step_with_an_adapter(update):
    lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer, found = update(peft_config=lora, bf16=True)
    assert found.norm() > 0 and found.isfinite().all()
    assert all(p.dtype == torch.float32 for p in trainer.model.parameters() if p.requires_grad)


@needs_cuda
def test_the_allocator_grows_its_segments():
    """A recipe sets this before the first use of CUDA, in the environment, which torch reads then."""
    code = (
        "from gbpo.run.recipe.parsing import parse; parse(['recipes/tiny_math.yaml']); import torch; "
        "torch.ones(1, device='cuda'); s = torch.cuda.memory._snapshot(); "
        "print(s['allocator_settings']['expandable_segments'])"
    )
    environment = {k: v for k, v in os.environ.items() if not k.endswith("ALLOC_CONF")}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.split()[-1:] == ["True"], done.stderr[-2000:]


@pytest.fixture(scope="module")
def with_vllm(request):
    """The metrics of 20 optimiser steps in bfloat16 with a colocated vLLM, 2 steps on each generation."""
    pytest.importorskip("vllm", reason="DID NOT RUN: vLLM is not installed")
    run_with_vllm = request.getfixturevalue("run_with_vllm")  # builds a model, so not before the line above
    flags = ("--bf16", "true", "--max_steps", 20, "--num_iterations", 2, "--gradient_accumulation_steps", 1)
    run = run_with_vllm(*flags, "--steps_per_generation", 1, "--target_baseline", "exact")
    rows = [json.loads(line) for line in (run.output / "metrics.jsonl").read_text().splitlines()]
    return SimpleNamespace(rows=[row for row in rows if "loss" in row])


def test_the_first_ratios_with_vllm_are_one(with_vllm):
    """The first step on each generation, in bfloat16. In the second step the policy has moved."""
    percentiles = [[row[f"gbpo/ratio_{p}"] for p in ("p01", "p50", "p99")] for row in with_vllm.rows]
    assert len(percentiles) == 20
    assert percentiles[::2] == [[1.0, 1.0, 1.0]] * 10
    assert all(low < 1.0 < high for low, _, high in percentiles[1::2])


def test_vllm_has_the_weights(with_vllm):
    gaps = [row["sampling/sampling_logp_difference/mean"] for row in with_vllm.rows[::2]]
    print(f"\nmean |vLLM - trainer| of the log-probs in bfloat16: {min(gaps):.2g} to {max(gaps):.2g}")
    assert len(gaps) == 10 and all(0 < gap < 0.05 for gap in gaps)


@needs_cuda
def test_speed_and_memory(tmp_path):
    """Prints tokens per second, MFU and memory beside TRL's, for a random model with the shape of Qwen2.5-0.5B."""
    found = tmp_path / "bench.json"
    command = [sys.executable, "-m", "evals.bench", "train", "--model", "qwen2.5-0.5b", "--json", str(found)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=500)
    cases = {case["case"]: case for case in json.loads(found.read_text())["results"]}
    print(json.dumps(cases, indent=1))
    skewed = cases["skewed, 50% zero-signal"]
    assert skewed["speedup"] > 1.5
    assert skewed["ours_reserved_bytes"] >= skewed["ours_peak_bytes"] > 0
    assert all(case["gradient_error"] < 0.05 for case in cases.values())  # bfloat16
