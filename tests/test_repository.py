"""The repository itself: its layout, what a wheel carries, and imports from anywhere."""

import doctest
import importlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import gbpo
from gbpo.trainer.sampling.vllm_client import START
from wheel_use import train_compare_report

ROOT = Path(__file__).parents[1]


def test_top_level_holds_the_fixed_layout_and_nothing_else():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert {name.split("/")[0] for name in tracked} == {
        *("gbpo", "recipes", "rewards", "tests", "launch", "evals"),
        *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "AGENTS.md", "LICENSE"),
        *("pyproject.toml", "Makefile", "constraints.txt"),
        *(".ci", ".gitignore"),
    }


EXAMPLES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for package in ("gbpo", "rewards", "evals")
    for path in ROOT.glob(f"{package}/**/*.py")
    if ">>> " in path.read_text()
)


@pytest.mark.parametrize("module", EXAMPLES)
def test_the_examples_in_the_docstrings_run(module):
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted > 0 and result.failed == 0


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("gbpo-*.whl"))


def test_wheel_has_one_top_level_name(wheel):
    names = {name.split("/")[0] for name in ZipFile(wheel).namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"gbpo"}


def test_wheel_ships_the_licence_the_type_marker_and_no_file_of_another_kind(wheel):
    """Weights, data sets or pictures from elsewhere would have a licence of their own."""
    names = ZipFile(wheel).namelist()
    assert "gbpo/py.typed" in names and f"gbpo-{gbpo.__version__}.dist-info/licenses/LICENSE" in names
    kinds = {Path(name).suffix for name in names if name.startswith("gbpo/")}
    assert kinds == {".py", ".md", ".yaml", ".json", ".html", ".css", ".js", ".typed"}
    assert {name for name in names if name.endswith(".json")} == {
        f"gbpo/evals/bench/baselines/{path.name}" for path in (ROOT / "evals/bench/baselines").glob("*.json")
    }


def test_wheel_works_without_the_checkout(wheel, tmp_path):
    """Rewards travel as gbpo.rewards, and the runner finds them there."""
    ZipFile(wheel).extractall(tmp_path)
    code = (
        "import gbpo, gbpo.rewards, gbpo.run.train as train, sys\n"
        f"assert gbpo.__file__.startswith({str(tmp_path)!r}), gbpo.__file__\n"
        "assert train.rewards_module() is gbpo.rewards\n"
        "assert gbpo.rewards.get_reward('exact_match')(['4'], solution=['4']) == [1.0]\n"
        "assert 'rewards' not in sys.modules\n"
        "try:\n    train.main(['nowhere.yaml'])\nexcept SystemExit as stop:\n    assert stop.code == 2\n"
    )
    script = tmp_path / "use.py"
    script.write_text(code)
    done = subprocess.run([sys.executable, str(script)], cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_wheel_trains_compares_and_reports(wheel, tmp_path):
    """All commands are found in the wheel, outside the checkout. The starting model is built once."""
    installed = tmp_path / "installed"
    ZipFile(wheel).extractall(installed)
    checkout = str(ROOT)

    def gbpo(*words):
        code = (
            "import sys\n"
            f"sys.path[:] = [{str(installed)!r}] + [p for p in sys.path if not (p == {checkout!r} or not p)]\n"
            "import gbpo.__main__ as command\n"
            f"assert command.__file__.startswith({str(installed)!r}), command.__file__\n"
            f"command.main({list(words)!r})\n"
            "assert not {'evals', 'rewards'} & set(sys.modules)\n"
        )
        script = tmp_path / "use.py"
        script.write_text(code)
        environment = {**os.environ, "PYTHONPATH": str(installed)}
        done = subprocess.run(
            [sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    train_compare_report(gbpo, tmp_path)


def test_checkout_imports_from_any_directory(tmp_path):
    code = "import gbpo, rewards, evals; print(gbpo.__file__, rewards.__file__, evals.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(Path(path).is_relative_to(ROOT) for path in done.stdout.split())


def required_by(extras):
    """The requirements of pyproject.toml that a user installs with these extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [
        Requirement(line)
        for lines in (project["dependencies"], *(project["optional-dependencies"][name] for name in extras))
        for line in lines
    ]


def test_the_tested_versions_are_in_the_required_ranges():
    """Those of constraints.txt, and those of the engines in the Makefile, which installs the CPU build of vLLM."""
    tested = re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    tested += re.findall(r"\b(vllm|deepspeed)(?:-cpu)?==([\d.]+)", (ROOT / "Makefile").read_text())
    versions = {canonicalize_name(name): version for name, version in tested}
    for requirement in required_by(["vllm", "deepspeed", "evals", "tensorboard", "wandb", "trackio", "mlflow"]):
        assert versions[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_the_container_installs_the_tested_versions():
    """launch/Dockerfile was not built here, so its files, extras and pins are compared with those of the checkout."""
    lines = re.sub(r"\\\n\s*", "", (ROOT / "launch" / "Dockerfile").read_text()).splitlines()
    copied = [name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]]
    assert copied and all((ROOT / name).exists() for name in copied)
    assert {"gbpo", "rewards", "evals", "recipes", "launch", "pyproject.toml", "constraints.txt"} <= set(copied)
    (extras,) = re.findall(r"^ARG EXTRAS=(\S+)$", "\n".join(lines), re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    (python,) = re.findall(r"^FROM python:([\d.]+)-slim", "\n".join(lines), re.MULTILINE)
    assert python in SpecifierSet(project["requires-python"])
    assert f"Programming Language :: Python :: {python}" in project["classifiers"]
    (pins,) = re.findall(r"grep -E '(\S+)' constraints.txt", "\n".join(lines))
    assert f"grep -E '{pins}' constraints.txt > $(ENGINE_PINS)" in (ROOT / "Makefile").read_text()
    assert [line.count("--constraint pins.txt") for line in lines if "pip install" in line] == [1, 1]


def test_every_lower_bound_can_be_installed_by_make_test_oldest():
    """Each requirement has the form NAME>=VERSION…, and the Makefile makes NAME==VERSION of it."""
    script = re.search(r"^OLDEST_PINS := (.*?)\n\n", (ROOT / "Makefile").read_text(), re.MULTILINE | re.DOTALL)[1]
    command = [sys.executable, "-c", script.replace("\\\n", "").replace("\t", "")]
    pins = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    wanted = required_by(["evals"])
    assert len(pins) == len(wanted)
    for pin, requirement in zip(map(Requirement, pins), wanted, strict=True):
        (bound,) = (one.version for one in requirement.specifier if one.operator == ">=")
        assert (pin.name, str(pin.specifier)) == (requirement.name, f"=={bound}")


def served_commands(text):
    """Command lines with `vllm serve`, without the line breaks that a shell or a comment puts into them."""
    lines = re.sub(r"\\\n[#\s]*", "", text).splitlines()
    return [
        line
        for line in lines
        if re.search(r"\bvllm serve [^\s`]", line) and "--served-model-name" not in line  # a judge has its own name
    ]


def test_every_vllm_server_is_started_with_the_flags_of_a_run():
    """By `vllm serve`. TRL's own command for a server is deprecated."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    texts = {name: (ROOT / name).read_text() for name in tracked if Path(name).suffix not in (".png", ".gz")}
    assert [name for name, text in texts.items() if "vllm" + "-serve" in text] == []
    pages = {name: served_commands(text) for name, text in texts.items() if Path(name).suffix != ".py"}
    assert {name for name, commands in pages.items() if commands} >= {
        *("launch/README.md", "launch/slurm/gbpo.sbatch", "recipes/qwen_math_server.yaml")
    }
    for command in (START, *(command for commands in pages.values() for command in commands)):
        flags = ["--dtype ", '--weight-transfer-config \'{"backend": "nccl"}\'', "--logprobs-mode processed_logprobs"]
        for flag in ("VLLM_SERVER_DEV_MODE=1 vllm serve ", *flags, "--max-logprobs -1"):
            assert flag in command
        assert "--max-model-len " in command or "$VLLM_ARGS" in command


def test_nothing_names_a_machine():
    """No absolute path of a developer's machine in what is shipped."""
    folders = ("gbpo", "recipes", "rewards", "tests", "launch", "evals")
    for path in (*ROOT.glob("*.*"), *(path for folder in folders for path in (ROOT / folder).rglob("*.*"))):
        if path.suffix in (".py", ".md", ".yaml", ".json", ".sh", ".toml", ".txt"):
            assert not re.search(r"/(?:work|home/\w+|root)/", path.read_text()), path
