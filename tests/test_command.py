"""The command `gbpo`: what it finds, what it starts, and its errors."""

import os
import re
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import pytest

import gbpo.__main__ as command
from gbpo.shared import packages
from gbpo.shared.packages import find_recipe, import_root, recipes_folder, shipped_recipes

ROOT = Path(__file__).parents[1]
INSTALL_EVALS = packages.install_command("evals")


@pytest.fixture
def run(capsys):
    """`run(*words)` → exit status, output and errors of the command."""

    def call(*words):
        try:
            command.main(words)
            status = 0
        except SystemExit as end:
            status = end.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def test_the_help_names_every_command_and_imports_nothing_large():
    code = (
        "import sys, gbpo.__main__ as command\n"
        "command.main(['--help']); command.main(['recipes'])\n"
        "assert not {'torch', 'trl', 'transformers'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(f"\n  {name} " in done.stdout for name in command.COMMANDS)


@pytest.mark.parametrize("name", [name for name in command.COMMANDS if name != "recipes"])
def test_every_command_has_its_own_help(name, run):
    """The modules exist, in the checkout as in the wheel, and name the command that the user typed."""
    status, out, _ = run(name, "--help")
    assert status == 0
    assert f"gbpo {name}" in out


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize("name", command.COMMANDS)
def test_the_help_of_a_command_is_one_screen(name, width, run, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    _, out, _ = run(name, "--help")
    assert [line for line in out.splitlines() if len(line) > width] == []  # a terminal would wrap it
    assert len(out.splitlines()) <= (60 if name == "train" else 50)


@pytest.mark.parametrize("name", ["compare", "rollouts", "check", "control", "theory"])
def test_every_option_says_its_default(name):
    """In brackets at the end of its help, unless it is a switch or has no default."""
    options = [
        one for one in command._parser(name)._actions if one.option_strings and "--help" not in one.option_strings
    ]
    defaults = {one.option_strings[0]: one.help for one in options if one.default not in (None, False, [])}
    assert defaults
    assert {flag: text for flag, text in defaults.items() if not text.endswith(")")} == {}


def test_the_help_of_train_has_the_own_fields_first(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    _, short, _ = run("train", "--help")
    _, whole, _ = run("train", "--help-all")
    assert all(len(line) <= 120 for line in (short + whole).splitlines())
    assert short.index("--dataset_name ") < short.index("--target_baseline ")
    assert "--learning_rate " not in short
    assert "--learning_rate " in whole and "--lora_r " in whole
    assert re.search(r"--resume_from_checkpoint +\(None\) +auto .*restores the whole run\n", whole)


def test_recipes_are_found_by_name_and_a_file_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_recipe("tiny_math") == recipes_folder() / "tiny_math.yaml"
    assert find_recipe("cartpole") == find_recipe("control/cartpole") == recipes_folder() / "control/cartpole.yaml"
    assert find_recipe("mine.yaml").name == "mine.yaml"
    (tmp_path / "tiny_math").write_text("")
    assert str(find_recipe("tiny_math")) == "tiny_math"


def test_recipes_are_listed_shown_and_copied_but_nothing_is_overwritten(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, listed, _ = run("recipes")
    assert all(f"\n{name} " in f"\n{listed}" for name in shipped_recipes())
    text = (recipes_folder() / "tiny_math.yaml").read_text()
    assert run("recipes", "show", "tiny_math")[1] == text
    assert run("recipes", "copy", "tiny_math")[0] == 0
    (tmp_path / "tiny_math.yaml").write_text("mine")
    status, _, error = run("recipes", "copy", "tiny_math")
    assert status == 2 and "is not overwritten" in error
    assert (tmp_path / "tiny_math.yaml").read_text() == "mine"
    assert run("recipes", "copy", "tiny_math", "other.yaml")[0] == 0
    assert (tmp_path / "other.yaml").read_text() == text


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["trian"], ["'trian'", "gbpo train"]),
        (["recipes", "show", "tiny_mth"], ["'tiny_mth'", "'tiny_math'"]),
        (["recipes", "print"], ["'print'", "gbpo recipes"]),
        (["completion", "fish"], ["'fish'", "gbpo completion bash|zsh"]),
        (["train", "tiny_math", "--processes", "zero"], ["--processes zero", "number of processes"]),
        (["train", "tiny_math", "--processes"], ["--processes", "without a value"]),
        (["train", "tiny_mth"], ["tiny_mth not found", "Did you mean 'tiny_math'?"]),
        (["control", "cartpol"], ["cartpol not found", "Did you mean 'cartpole'?"]),
        (["train"], ["No recipe given", "gbpo train RECIPE"]),
        (["train", "no.yaml"], ["no.yaml not found"]),
        (["compare"], ["Missing: recipe, --algorithms, --seeds. Without them", "gbpo compare tiny_math --algorithms"]),
        (["compare", "no.yaml", "--algorithms", "gbpo", "--seeds", "0"], ["error: Recipe no.yaml not found"]),
        (["evaluate"], ["Missing: MODEL. Without a model", "gbpo evaluate runs/tiny_math"]),
        (["evaluate", "no_run"], ["'no_run'", "nothing to evaluate on", "runs/tiny_math"]),
        (["evaluate", "no_run", "no.jsonl", "--reward", "math"], ["'no.jsonl' not found", "Check the path"]),
        (["report"], ["Missing: folder. Without it", "gbpo report runs/tiny_math"]),
        (["report", "no_run"], ["'no_run'", "nothing to report", "runs/tiny_math"]),
        (["rollouts"], ["Missing: run. Without it", "gbpo rollouts runs/tiny_math"]),
        (["rollouts", "no_run"], ["'no_run' is not the output folder of a run", "nothing to show", "runs/tiny_math"]),
        (["check"], ["Missing: dataset, --reward. Without them", "gbpo check problems.jsonl --reward math"]),
        (["check", "no.jsonl", "--reward", "math"], ["'no.jsonl' not found", "Check the path"]),
        (["check", __file__, "--reward", "math"], [__file__, "cannot be loaded", "Convert it"]),
        (["check", "no/data", "--reward", "math"], ["'no/data', split 'train', could not be loaded", "local file"]),
        (["doctor", "no.yaml"], ["no.yaml not found"]),
        (["recipes", "show"], ["nothing to show", "gbpo recipes show tiny_math"]),
        (["recipes", "show", "tiny_math", "more"], ["'show tiny_math more'", "gbpo recipes [show NAME"]),
        (["recipes", "copy", "tiny_math", "no/x.yaml"], ["no/x.yaml cannot be written", "a folder that exists"]),
        (["control"], ["Neither is given", "such as cartpole", "--env"]),
        (["control", "no.yaml"], ["no.yaml not found"]),
        (["completion"], ["No shell is named", "gbpo completion bash|zsh"]),
        (["bench"], ["Missing: benchmark. Without it", "gbpo bench train"]),
        (["bench", "rewards", "--json", "no/x.json"], ["--json 'no/x.json' cannot be written", "another file"]),
    ],
)
def test_bad_input_is_one_line(words, parts, run):
    status, _, error = run(*words)
    assert status == 2
    assert len(error.strip().splitlines()) == 1
    assert all(part in error for part in parts), error


def test_a_command_without_its_extra_names_the_command_that_installs_it(run, monkeypatch):
    monkeypatch.setattr(packages, "find_spec", lambda name: None if name == "scipy" else object())
    status, _, error = run("evaluate", "runs/mine")
    assert status == 2
    assert error.strip() == f"gbpo: error: gbpo evaluate needs scipy, which is not installed: {INSTALL_EVALS}."


@pytest.mark.parametrize("name", ["compare", "evaluate", "theory"])
def test_a_module_without_its_extra_names_the_command_that_installs_it(name, tmp_path):
    """`python -m evals.compare` as well, although its modules import SciPy."""
    code = (
        "import runpy, sys\n"
        "class NoScipy:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.split('.')[0] == 'scipy': raise ModuleNotFoundError(name)\n"
        "import importlib.util, gbpo.shared.packages as packages\n"
        "packages.find_spec = lambda name: None if name == 'scipy' else importlib.util.find_spec(name)\n"
        "sys.meta_path.insert(0, NoScipy())\n"
        f"sys.argv = ['evals.{name}', 'x']\n"
        f"runpy.run_module('evals.{name}', run_name='__main__', alter_sys=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr.strip().endswith(f"gbpo {name} needs scipy, which is not installed: {INSTALL_EVALS}.")
    assert len(done.stderr.strip().splitlines()) == 1


def test_only_the_report_of_a_comparison_needs_the_extra(run, tmp_path, monkeypatch):
    monkeypatch.setattr(packages, "find_spec", lambda name: None if name == "scipy" else object())
    (tmp_path / "results.json").write_text("{}")
    status, _, error = run("report", str(tmp_path))
    assert status == 2 and INSTALL_EVALS in error
    status, _, error = run("report", str(tmp_path / "no_run"))
    assert status == 2 and "scipy" not in error


@pytest.mark.parametrize("words", ["recipes", "recipes show qwen_math", "completion bash"])
def test_a_reader_that_stops_early_sees_no_traceback(words):
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m gbpo {words} | true"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr
    assert done.returncode == 0


def test_each_recipe_is_listed_with_a_whole_sentence(run):
    lines = run("recipes")[1].splitlines()[:-2]
    assert len(lines) == len(shipped_recipes())
    assert all(line.endswith(".") for line in lines)
    assert "learns to count the 1 bits of numbers." in "\n".join(lines)


def test_completion_names_the_extra_of_options_that_it_leaves_out(run, monkeypatch):
    found = packages.find_spec
    monkeypatch.setattr(packages, "find_spec", lambda name: None if name == "stable_baselines3" else found(name))
    status, output, error = run("completion", "bash")
    assert status == 0 and "--max_steps" in output
    assert "'gbpo control' are not completed: gbpo control needs stable_baselines3" in error
    assert "[control]" in error and "module" not in error


def test_a_file_that_hides_a_package_of_gbpo_is_named(tmp_path, monkeypatch):
    (tmp_path / "rewards.py").write_text("")
    spec = types.SimpleNamespace(origin=str(tmp_path / "rewards.py"))
    monkeypatch.setattr(packages, "find_spec", lambda name: spec)
    with pytest.raises(ImportError, match=r"rewards.py hides the package 'rewards' of gbpo.* such as my_rewards"):
        packages.companion("rewards")


def test_an_extra_is_installed_from_the_checkout_or_by_name(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text("")
    monkeypatch.setattr(packages, "import_root", lambda: tmp_path)
    assert packages.install_command("vllm") == f"pip install -e '{tmp_path}[vllm]'"
    monkeypatch.chdir(tmp_path)
    assert packages.install_command("vllm") == "pip install -e '.[vllm]'"
    (tmp_path / "pyproject.toml").unlink()
    assert packages.install_command("vllm") == "pip install 'gbpo[vllm]'"


def test_every_named_extra_exists_and_only_one_place_writes_the_command():
    sources = {path: path.read_text() for part in ("gbpo", "rewards", "evals") for path in (ROOT / part).rglob("*.py")}
    named = {extra for text in sources.values() for extra in re.findall(r"install_command\([\"'](\w+)", text)}
    named |= {extra for _, extra in command._NEEDS.values()}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {"vllm", "deepspeed", "atari"} < named <= set(extras)
    assert [path.name for path, text in sources.items() if re.search(r"pip install[^\n]*gbpo\[", text)] == [
        "packages.py"
    ]


@pytest.mark.parametrize("form", [["--processes", "2"], ["--processes=2"]])
def test_processes_start_torchrun_with_the_rest(form, monkeypatch):
    started = []
    monkeypatch.setattr(command.os, "execv", lambda program, words: started.append(words))
    command.main(["train", "tiny_math", *form, "--seed", "1"])
    (words,) = started
    assert words[words.index("--nproc-per-node") + 1] == "2"
    assert words[-4:] == [str(import_root() / "launch" / "gbpo.py"), "tiny_math", "--seed", "1"]


@pytest.mark.slow
def test_two_processes_train_one_model(tmp_path):
    small = ["--per_device_train_batch_size=16", "--max_steps=2", "--max_completion_length=3", "--output_dir=run"]
    environment = {**os.environ, "PYTHONPATH": str(import_root())}
    done = subprocess.run(
        [sys.executable, "-m", "gbpo", "train", "tiny_math", "--processes", "2", *small],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


def test_an_interrupt_while_a_command_is_loaded_prints_no_traceback(monkeypatch):
    def load(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "_module", load)
    with pytest.raises(SystemExit) as stop:
        command.main(["train", "tiny_math"])
    assert stop.value.code == 130
