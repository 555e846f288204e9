"""The real vLLM, colocated and as a server: `make test-engines`. On the CPU, cpu_vllm.py patches the weight sync."""

import urllib.request

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file

from evals.bench.vllm_server import stop, vllm_server
from server_runs import rows, wait_until

# the same prompts whatever the seed; two optimiser steps on each of the generations
COLOCATE = ["--vllm_mode", "colocate", "--shuffle_dataset", "false"]
STEPS = 30


def completions(output, step):
    return Dataset.from_parquet(str(output / "completions" / f"completions_{step:05d}.parquet"))["completion"]


@pytest.fixture(scope="module")
def trained(run_with_vllm):
    """30 optimiser steps with a colocated engine, from a checkpoint that says bfloat16, in float32."""
    return run_with_vllm(
        *COLOCATE, *("--seed", 0, "--max_steps", STEPS, "--save_strategy", "steps", "--save_steps", STEPS - 2)
    )


def test_reward_rises(trained):
    """First and last four generations, 1,024 completions each: 0.10 is six standard errors of their difference."""
    rewards = [row["reward"] for row in rows(trained.output)][::2]
    first, last = sum(rewards[:4]) / 4, sum(rewards[-4:]) / 4
    assert last - first > 0.10, rewards


def test_engine_computes_in_the_trainers_dtype_and_gets_its_weights(trained):
    """A bfloat16 engine would show a gap of 0.006 here, one without the weights 0.05 from the second sync on."""
    second = rows(trained.output)[2]
    assert second["gbpo/vllm_logp_gap"] < 1e-5
    assert second["gbpo/vllm_logp_movement"] > 0.02
    assert max(row["sampling/sampling_logp_difference/mean"] for row in rows(trained.output)) < 1e-5


@pytest.mark.parametrize("withhold", [".", "mlp"], ids=["all weights", "the weights of the MLPs"])
def test_weights_that_are_withheld_end_the_run(run_with_vllm, withhold):
    run = run_with_vllm(*COLOCATE, "--max_steps", STEPS, withhold=withhold, status=3)
    assert "gbpo: ended at step 2: vLLM does not sample from the policy that is trained: at step 2 " in run.errors
    assert "Traceback" not in run.errors
    assert len(rows(run.output)) == 2


def test_seed_reaches_the_sampler(trained, run_with_vllm):
    again, other = (run_with_vllm(*COLOCATE, "--max_steps", 2, "--seed", seed).output for seed in (0, 1))
    expected = completions(trained.output, 1)
    assert completions(again, 1) == expected
    assert completions(trained.output, 3) != expected
    differ = sum(a != b for a, b in zip(completions(other, 1), expected, strict=True)) / len(expected)
    assert differ > 0.5  # 256 answers of two digits


def test_resumed_run_samples_and_ends_the_same(trained, run_with_vllm):
    """A new engine, at generation 15, on the weights of the checkpoint."""
    checkpoint = trained.output / f"checkpoint-{STEPS - 2}"
    resumed = run_with_vllm(*COLOCATE, *("--seed", 0, "--max_steps", STEPS, "--resume_from_checkpoint", checkpoint))
    assert completions(resumed.output, STEPS - 1) == completions(trained.output, STEPS - 1)
    weights, expected = (load_file(run.output / "model" / "model.safetensors") for run in (resumed, trained))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


@pytest.fixture
def server(untied_model, tmp_path):
    with vllm_server(untied_model, tmp_path / "server.log") as process:
        yield process


def test_server_trains_with_the_seed_and_its_end_is_the_runs(server, untied_model, run_with_vllm, start_with_vllm):
    """The run waits for the server, which is still loading; the second one finds the weights of the first there."""
    flags = ["--vllm_mode", "server", "--vllm_server_base_url", server.url, "--shuffle_dataset", "false"]
    flags += ["--model_name_or_path", untied_model]
    first, again = (run_with_vllm(*flags, "--max_steps", 6, "--seed", 0) for _ in range(2))
    assert completions(again.output, 1) == completions(first.output, 1)
    assert completions(again.output, 5) == completions(first.output, 5)
    assert rows(first.output)[2]["gbpo/vllm_logp_gap"] < 1e-5
    assert rows(first.output)[2]["gbpo/vllm_logp_movement"] > 0.02
    with urllib.request.urlopen(f"{server.url}/health", timeout=10) as answer:
        assert answer.status == 200

    too_long = run_with_vllm(*flags, "--max_completion_length", 70, status=3)  # the server's length is 64
    refused = f"The vLLM server answered {server.url}/v1/completions with status 400: "
    message = [line for line in too_long.errors.splitlines() if refused in line]
    assert len(message) == 1 and "max_model_len=max_total_tokens=64" in message[0], too_long.errors[-3000:]
    assert "larger --max-model-len" in message[0] and "Traceback" not in too_long.errors

    run = start_with_vllm(*flags, "--max_steps", 10_000)
    wait_until(lambda: len(rows(run.output)) >= 4, run)
    stop(server)
    _, errors = run.communicate(timeout=200)
    assert run.returncode == 3, errors[-3000:]
    message = [line for line in errors.splitlines() if "gbpo: ended at step " in line]
    assert len(message) == 1 and f"The vLLM server is gone: {server.url}" in message[0], errors[-3000:]
    assert "Traceback" not in errors
