"""Fixtures of the whole suite, the order of the files, and which tests are slow. Everything runs offline on the CPU."""

import inspect
import json
import os
import shutil
import sys
import types
from collections import Counter
from pathlib import Path

os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    DO_NOT_TRACK="1",
    TRL_EXPERIMENTAL_SILENCE="1",
    TOKENIZERS_PARALLELISM="false",
    HF_TOKEN="",
    HF_TOKEN_PATH=os.devnull,
)
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

import processes
from browser import Browser

ROOT = Path(__file__).parents[1]
TESTS = str(ROOT / "tests")

# Names that a function uses when it starts processes.
STARTERS = {"subprocess", "multiprocessing", "processes", "Popen"}


def pytest_collection_modifyitems(items):
    """Mark slow tests, and run files with many of them first; otherwise one worker would run the last file alone."""
    swept = set()
    for item in items:
        test = (item.path, item.originalname)
        is_further_case = item.get_closest_marker("sweep") and test in swept
        if is_further_case or starts_processes(item) or "hostile" in item.nodeid or "study" in item.nodeid:
            item.add_marker("slow")
        swept.add(test)
    slow = {(item.path, item.originalname) for item in items if item.get_closest_marker("slow")}
    slow_in = Counter(path for path, _ in slow)
    items.sort(key=lambda item: -slow_in[item.path])


def starts_processes(item):
    """Whether a test, one of its fixtures, or a function of the tests that they call starts processes."""
    fixtures = [one.func for definitions in item._fixtureinfo.name2fixturedefs.values() for one in definitions]
    pending, seen = [item.function, *fixtures], set()
    while pending:
        function = inspect.unwrap(pending.pop())
        if function in seen or not inspect.isfunction(function):
            continue
        seen.add(function)
        names = names_in(function.__code__)
        if names & STARTERS:
            return True
        called = [function.__globals__.get(name) for name in names]
        pending += [one for one in called if inspect.isfunction(one) and one.__code__.co_filename.startswith(TESTS)]
    return False


def names_in(code):
    """Global names and attributes that a function and the functions inside it use."""
    inner = [names_in(constant) for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return set(code.co_names).union(*inner)


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
def vision_model(tmp_path_factory):
    """Folder of a tiny untrained Qwen2.5-VL with its processor."""
    import pictures

    return pictures.save(tmp_path_factory.mktemp("vision_model"))


@pytest.fixture(scope="session")
def vision_processor():
    """The processor of `vision_model`."""
    from gbpo.run.models.tiny_vision import tiny_processor

    return tiny_processor()


@pytest.fixture(scope="session")
def in_two_processes():
    """`in_two_processes(strategy, script, *arguments)` runs a script with launch/accelerate/<strategy>.yaml."""

    def run(strategy, script, *arguments, cwd=None):
        command = [sys.executable, "-m", "accelerate.commands.launch"]
        command += ["--config_file", ROOT / "launch" / "accelerate" / f"{strategy}.yaml"]
        command += ["--num_processes", 2, "--main_process_port", 0]  # 0: any free port
        if strategy == "fsdp2":
            command.append(ROOT / "tests" / "fsdp_on_cpu.py")
        return processes.run(*command, script, *arguments, cwd=cwd, timeout=1800)

    return run


ONE_STEP = ROOT / "tests" / "trainer" / "one_step.py"


@pytest.fixture(scope="session")
def step_alone(random_model, tmp_path_factory):
    """`step_alone(algorithm)` → the result of one_step.py in one process, for `check_step`."""
    steps = {}

    def step(algorithm):
        if algorithm not in steps:
            output = tmp_path_factory.mktemp("alone") / "step.pt"
            config = json.dumps({"algorithm": algorithm, **STEP, "per_device_train_batch_size": 16})
            processes.run_script(ONE_STEP, random_model, output, 1, config)
            steps[algorithm] = torch.load(output)
        return steps[algorithm]

    return step


# With beta there is a reference model, which each strategy must shard or copy too.
STEP = {"num_generations": 8, "beta": 0.1}


@pytest.fixture
def check_step(random_model, tmp_path, in_two_processes, step_alone):
    """`check_step(strategy, algorithm)`: two processes take the step that one takes, and save the trained model."""

    def check(strategy, algorithm):
        from transformers import AutoModelForCausalLM

        output = tmp_path / "step.pt"
        config = {"algorithm": algorithm, **STEP, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
        in_two_processes(strategy, ONE_STEP, random_model, output, 2, json.dumps(config))
        alone, step = step_alone(algorithm), torch.load(output)
        assert alone["update"].norm() > 1e-3
        assert (step["update"] - alone["update"]).norm() / alone["update"].norm() < 1e-6
        assert step["metrics"]["loss"] == pytest.approx(alone["metrics"]["loss"], rel=1e-6, abs=1e-7)
        assert step["metrics"]["kl"] == pytest.approx(0.0, abs=1e-7)  # policy and reference are still equal
        model = AutoModelForCausalLM.from_pretrained(f"{output}.model", dtype=torch.float32)
        tokens = step["tokens"]
        with torch.no_grad():
            log_probs = model(tokens).logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None]).squeeze(-1)
        torch.testing.assert_close(log_probs, step["log_probs"], atol=2e-6, rtol=0)

    return check


@pytest.fixture
def check_sharded_adapter(random_model, tmp_path, in_two_processes):
    """`check_sharded_adapter(strategy)`: the fake engine gets the merged weights, and the frozen weights stay."""

    def check(strategy):
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        script = ROOT / "tests" / "trainer" / "sampling" / "sharded_adapter.py"
        in_two_processes(strategy, script, random_model, tmp_path)
        base = AutoModelForCausalLM.from_pretrained(random_model, dtype=torch.bfloat16).float()
        before = {name: weight.clone() for name, weight in base.named_parameters()}
        expected = PeftModel.from_pretrained(base, str(tmp_path / "adapter")).merge_and_unload()
        seen = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
        for one in seen:
            assert one["sharded"] and not one["changed"]
            for name, exact in expected.named_parameters():
                change = (exact - before[name]).abs()  # PEFT may round it to bfloat16
                spacing = torch.finfo(torch.bfloat16).eps * (exact.abs() + change)
                assert ((one["engine"][name] - exact).abs() <= spacing).all(), name
                assert torch.equal(one["engine"][name], seen[0]["engine"][name]), name
        moved = [name for name, exact in expected.named_parameters() if not torch.equal(exact, before[name])]
        assert len(moved) > len(before) / 2

    return check


@pytest.fixture
def check_ahead(random_model, tmp_path, in_two_processes):
    """`check_ahead(strategy, num_generations)`: two processes that sample ahead take the steps of one.

    Three generations of 16 completions with two steps each; both processes ask the stand-in server.
    """
    from evals.bench.stand_in import served

    def check(strategy, num_generations=8):
        config = {"generate_ahead": 1, "num_iterations": 2, "max_steps": 6, "num_train_epochs": 9}
        config |= {"learning_rate": 0.1, "num_generations": num_generations}
        steps, prompts = [], []
        for ranks in (1, 2):
            output = tmp_path / f"{ranks}.pt"
            with served(random_model) as server:
                config |= {"server": f"http://127.0.0.1:{server.server_port}"}
                config |= {"per_device_train_batch_size": 16 // ranks}
                arguments = (ONE_STEP, random_model, output, ranks, json.dumps(config))
                if ranks == 1 or strategy == "ddp":
                    processes.run_script(*arguments, ranks=ranks)
                else:
                    in_two_processes(strategy, *arguments)
                prompts.append({tuple(prompt[:-1]) for prompt in server.seen["prompts"]})
                assert server.seen["loads"] == 2 and server.seen["loads_while_sampling"] == 0
            steps.append(torch.load(output))
        alone, step = steps
        assert prompts[0] == prompts[1] and alone["steps"] == step["steps"] == 6
        assert alone["update"].norm() > 1e-2
        assert (step["update"] - alone["update"]).norm() / alone["update"].norm() < 1e-4

    return check


@pytest.fixture
def check_resume(random_model, tmp_path, in_two_processes):
    """`check_resume(strategy)`: a resumed run ends with the weights of an uninterrupted one."""

    def check(strategy):
        from safetensors.torch import load_file
        from transformers import AutoModelForCausalLM

        # An untrained model never answers correctly, so the reward only has to differ between completions.
        def train(output, *flags):
            in_two_processes(
                strategy,
                ROOT / "launch" / "gbpo.py",
                ROOT / "recipes" / "tiny_math.yaml",
                *("--model_name_or_path", random_model, "--reward_funcs", "rollouts.character_sum"),
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


@pytest.fixture
def launched(monkeypatch):
    """A function that makes this process look like one of several, for configurations. No process group is formed."""
    from transformers import TrainingArguments

    def launch(processes):
        monkeypatch.setenv("WORLD_SIZE", str(processes))
        monkeypatch.setattr(TrainingArguments, "world_size", processes)
        monkeypatch.setattr(TrainingArguments, "device", torch.device("cpu"))

    return launch


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium. A test without it is skipped, with the command that installs it."""
    executable = shutil.which("chromium")
    if not executable:
        pytest.skip("Chromium is not installed, so the page was not checked in a browser. apt-get install chromium")
    browser = Browser(executable, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def shots():
    """The folder for screenshots of pages."""
    folder = Path(os.environ.get("GBPO_SCREENSHOTS", "tests-output"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
