"""Fixtures shared by the whole suite: everything is made here, offline and on the CPU."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    DO_NOT_TRACK="1",
    TRL_EXPERIMENTAL_SILENCE="1",
    TOKENIZERS_PARALLELISM="false",
)
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

ROOT = Path(__file__).parents[1]

# the files that take longest come first, so that no worker is left alone with one at the end
LONG = (
    *("test_run.py", "test_compare.py", "test_step.py", "test_killed.py", "test_voting.py", "test_recipes.py"),
    *("test_bad_input.py", "test_launch.py", "test_distributed.py", "test_plan.py", "test_finite.py"),
    *("test_resume.py", "test_adapters.py", "test_evaluate.py", "test_kernels.py", "test_math.py", "test_hostile.py"),
)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture(scope="session")
def random_model(tmp_path_factory):
    """Folder of a tiny untrained decoder with a character tokenizer."""
    from gbpo.run.models.tiny import character_tokenizer, tiny_decoder

    folder = tmp_path_factory.mktemp("random_model")
    tokenizer = character_tokenizer()
    tiny_decoder(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def in_two_processes():
    """`in_two_processes(strategy, script, *arguments)`: as launch/accelerate/<strategy>.yaml starts it, on the CPU."""

    def run(strategy, script, *arguments, cwd=None):
        command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
        command += [str(ROOT / "launch" / "accelerate" / f"{strategy}.yaml")]
        command += ["--num_processes", "2", "--main_process_port", "0"]  # 0: a free one
        if strategy == "fsdp2":
            command.append(str(ROOT / "tests" / "fsdp_on_cpu.py"))
        command += [str(script), *map(str, arguments)]
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
        return done

    return run


ONE_STEP = ROOT / "tests" / "trainer" / "one_step.py"


@pytest.fixture(scope="session")
def step_alone(random_model, tmp_path_factory):
    """`step_alone(algorithm)` → what one process writes of the step that `check_step` compares."""
    steps = {}

    def step(algorithm):
        if algorithm not in steps:
            output = tmp_path_factory.mktemp("alone") / "step.pt"
            config = json.dumps({"algorithm": algorithm, **STEP, "per_device_train_batch_size": 16})
            command = [sys.executable, str(ONE_STEP), random_model, str(output), "1", config]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
            assert done.returncode == 0, done.stderr[-3000:]
            steps[algorithm] = torch.load(output)
        return steps[algorithm]

    return step


# beta: there is a reference model, which each strategy has to spread or copy too
STEP = {"num_generations": 8, "beta": 0.1}


@pytest.fixture
def check_step(random_model, tmp_path, in_two_processes, step_alone):
    """`check_step(strategy, algorithm)`: two processes take the step of one, and save the model they trained."""

    def check(strategy, algorithm):
        from transformers import AutoModelForCausalLM

        output = tmp_path / "step.pt"
        config = {"algorithm": algorithm, **STEP, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
        in_two_processes(strategy, ONE_STEP, random_model, output, 2, json.dumps(config))
        alone, step = step_alone(algorithm), torch.load(output)
        assert alone["update"].norm() > 1e-3
        assert (step["update"] - alone["update"]).norm() / alone["update"].norm() < 1e-6
        assert step["metrics"]["loss"] == pytest.approx(alone["metrics"]["loss"], rel=1e-6, abs=1e-7)
        assert step["metrics"]["kl"] == pytest.approx(0.0, abs=1e-7)  # policy and reference are still one
        model = AutoModelForCausalLM.from_pretrained(f"{output}.model", dtype=torch.float32)
        tokens = step["tokens"]
        with torch.no_grad():
            log_probs = model(tokens).logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None]).squeeze(-1)
        torch.testing.assert_close(log_probs, step["log_probs"], atol=2e-6, rtol=0)

    return check


@pytest.fixture
def check_resume(random_model, tmp_path, in_two_processes):
    """`check_resume(strategy)`: a run that goes on from a checkpoint ends as the one that was never stopped."""

    def check(strategy):
        from safetensors.torch import load_file
        from transformers import AutoModelForCausalLM

        # an untrained model never answers right: any reward that tells its completions apart
        (tmp_path / "own.py").write_text(
            "def ord_mod_3(completions, **kwargs):\n"
            "    return [float(sum(map(ord, c[0]['content'])) % 3) for c in completions]\n"
        )

        def train(output, *flags):
            in_two_processes(
                strategy,
                ROOT / "launch" / "gbpo.py",
                ROOT / "recipes" / "tiny_math.yaml",
                *("--model_name_or_path", random_model, "--reward_funcs", "own.ord_mod_3"),
                *("--per_device_train_batch_size", 16, "--logging_steps", 1, "--max_steps", 6),
                *("--save_strategy", "steps", "--save_steps", 3, "--output_dir", output, *flags),
                cwd=tmp_path,
            )
            rows = (output / "metrics.jsonl").read_text().splitlines()
            return {row["step"]: row["loss"] for row in map(json.loads, rows)}

        losses = train(tmp_path / "whole")
        shutil.copytree(
            tmp_path / "whole", tmp_path / "resumed", ignore=shutil.ignore_patterns("checkpoint-6", "model")
        )
        assert train(tmp_path / "resumed", "--resume_from_checkpoint", "true") == pytest.approx(losses, rel=1e-5)
        assert sorted(losses) == [1, 2, 3, 4, 5, 6]
        start = load_file(f"{random_model}/model.safetensors")
        whole, resumed = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "resumed"))
        for name, value in whole.items():
            torch.testing.assert_close(resumed[name], value, rtol=1e-5, atol=1e-6)
        assert any(not torch.equal(start[name], whole[name]) for name in start)
        AutoModelForCausalLM.from_pretrained(tmp_path / "resumed" / "model")

    return check
