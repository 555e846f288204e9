"""The house: rooms, imports that point one way, and what each part may load, from its text and fresh interpreters."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import gbpo

ROOT = Path(__file__).parents[1]
INSTALLED = Path(gbpo.__file__).parents[1]  # the folder of the gbpo under test
SOURCES = ("gbpo", "rewards", "evals", "launch", "recipes")
HEAVY = {"torch", "trl", "transformers", "stable_baselines3"}
TRAINING = ("gbpo.trainer", "gbpo.run", "gbpo.GBPOTrainer", "gbpo.GBPOConfig")


# ---------------------------------------------------------------------------------------------------------------------
# fresh interpreters
# ---------------------------------------------------------------------------------------------------------------------


def run_python(code):
    """Run `code` in a fresh interpreter that finds the gbpo under test, and parse the JSON that it prints."""
    path = os.pathsep.join(filter(None, [str(INSTALLED), os.environ.get("PYTHONPATH")]))
    process = subprocess.run(
        [sys.executable, "-c", f"import json, sys\n{code}"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        timeout=360,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


def test_core_loads_nothing_beyond_torch_and_the_standard_library():
    loaded = run_python(
        "import torch; with_torch = set(sys.modules)\n"
        "import gbpo.core; print(json.dumps(sorted(set(sys.modules) - with_torch)))"
    )
    assert {"gbpo.core.targets", "gbpo.core.losses"} <= set(loaded)
    top_level = {name.partition(".")[0] for name in loaded} - set(sys.stdlib_module_names) - {"torch"}
    assert top_level == {"gbpo"}
    assert not [name for name in loaded if name.startswith(TRAINING)]


def test_importing_gbpo_loads_no_heavy_package():
    loaded = run_python(
        "import gbpo; gbpo.__version__, gbpo.__all__, dir(gbpo)\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    assert "gbpo" in loaded
    assert HEAVY.isdisjoint(loaded)


def test_public_names_are_loaded_on_first_use_and_unknown_names_are_errors():
    # a stand-in for gbpo.trainer.config, so that TRL is not imported
    found, loaded, message = run_python(
        "import types, gbpo\n"
        "config = sys.modules['gbpo.trainer.config'] = types.ModuleType('config'); config.GBPOConfig = 'the class'\n"
        "try: gbpo.GBPOConfg\n"
        "except AttributeError as error: message = str(error)\n"
        "print(json.dumps([gbpo.GBPOConfig, 'gbpo.trainer.gbpo' in sys.modules, message]))"
    )
    assert found == "the class"
    assert not loaded
    assert message == "module 'gbpo' has no attribute 'GBPOConfg'"


# ---------------------------------------------------------------------------------------------------------------------
# the text of the source tree
# ---------------------------------------------------------------------------------------------------------------------


def imports_of(path, root):
    """Absolute names of everything a file imports.

    `from a import b` counts as `a` and `a.b`, and `import_module("a")` as `a`.
    """
    package = list(path.relative_to(root).with_suffix("").parts[:-1])
    names = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parent = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*parent, *([node.module] if node.module else [])])
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if function in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                name = node.args[0].value
                names.add(".".join([*package, name.lstrip(".")]) if name.startswith(".") else name)
    return names


def within(name, *modules):
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def forbidden(importer, name):
    """Whether the module `importer` must not import `name`."""
    if within(name, "launch", "recipes", "tests"):
        return True
    if within(importer, "gbpo.core"):
        return not within(name, "torch", "gbpo.core", *sys.stdlib_module_names)
    if within(importer, "rewards"):
        return within(name, "gbpo", "torch", "trl")
    if within(importer, "gbpo") and not within(importer, "gbpo.run"):
        if within(name, "rewards", "gbpo.rewards", "evals"):
            return True
        if within(importer, "gbpo.control"):
            return within(name, *TRAINING)
    return within(importer, "gbpo") and within(name, "gbpo.control")


def violations(root):
    found = []
    for path in sorted(path for source in SOURCES for path in (root / source).rglob("*.py")):
        importer = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        found += [f"{importer} imports {name}" for name in sorted(imports_of(path, root)) if forbidden(importer, name)]
    return found


def test_there_is_no_forbidden_import():
    assert (ROOT / "gbpo" / "core" / "targets.py").is_file()  # otherwise the test would pass with nothing to check
    assert violations(ROOT) == []


@pytest.mark.parametrize(
    ("path", "line", "names"),
    [
        ("gbpo/core/targets.py", "import numpy as np", ["numpy"]),
        ("gbpo/core/targets.py", "from scipy.special import expit", ["scipy.special", "scipy.special.expit"]),
        ("gbpo/core/targets.py", "from ..run import parse", ["gbpo.run", "gbpo.run.parse"]),
        ("gbpo/core/__init__.py", "def late():\n    import trl.trainer", ["trl.trainer"]),
        ("gbpo/core/targets.py", "from .. import trainer", ["gbpo", "gbpo.trainer"]),
        ("rewards/math.py", "import torch.nn", ["torch.nn"]),
        ("rewards/math.py", "from gbpo.core import target_ratio", ["gbpo.core", "gbpo.core.target_ratio"]),
        ("rewards/deep/code.py", "import trl", ["trl"]),
        ("gbpo/trainer/gbpo.py", "from rewards import get_reward", ["rewards", "rewards.get_reward"]),
        ("gbpo/trainer/gbpo.py", "from gbpo import rewards", ["gbpo.rewards"]),
        ("gbpo/trainer/gbpo.py", "from .. import rewards", ["gbpo.rewards"]),
        ("gbpo/trainer/config.py", "importlib.import_module('evals.report')", ["evals.report"]),
        ("gbpo/__init__.py", "import_module('.rewards', __name__)", ["gbpo.rewards"]),
        ("gbpo/control/bpo.py", "from ..trainer import gbpo", ["gbpo.trainer", "gbpo.trainer.gbpo"]),
        ("gbpo/control/bpo.py", "from gbpo import GBPOConfig", ["gbpo.GBPOConfig"]),
        ("gbpo/control/deep/bpo.py", "from ...run import folder", ["gbpo.run", "gbpo.run.folder"]),
        ("gbpo/trainer/gbpo.py", "from ..control import bpo", ["gbpo.control", "gbpo.control.bpo"]),
        ("gbpo/trainer/config.py", "import gbpo.control", ["gbpo.control"]),
        ("gbpo/run/train.py", "from ..control import bpo", ["gbpo.control", "gbpo.control.bpo"]),
        ("gbpo/run/train.py", "import launch.gbpo", ["launch.gbpo"]),
        ("evals/compare.py", "from tests.core import test_losses", ["tests.core", "tests.core.test_losses"]),
        ("launch/gbpo.py", "import recipes", ["recipes"]),
    ],
)
def test_a_forbidden_import_is_found(path, line, names, tmp_path):
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(line + "\n")
    importer = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    assert violations(tmp_path) == [f"{importer} imports {name}" for name in names]


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("gbpo/core/losses.py", "import math\nimport torch.nn.functional\nfrom .bounds import check_bounds"),
        ("gbpo/core/losses.py", "from gbpo.core.targets import at_least_float32"),
        ("gbpo/trainer/gbpo.py", "import torch, trl\nfrom ..core import target_ratio\nfrom .base import BaseTrainer"),
        ("gbpo/control/bpo.py", "import stable_baselines3\nfrom ..core import median_loss\nfrom .policy import Policy"),
        ("gbpo/run/train.py", "import rewards\nfrom gbpo import rewards\nfrom ..trainer import GBPOTrainer"),
        ("rewards/math.py", "import torchless\nfrom .batch import completion_text\nfrom trl_free import gbpo"),
        ("evals/compare.py", "import rewards, gbpo.control, gbpo.trainer"),
        ("launch/gbpo.py", "from gbpo.run.train import main\nfrom accelerate.commands import launch"),
    ],
)
def test_an_allowed_import_is_accepted(path, line, tmp_path):
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(line + "\n")
    assert violations(tmp_path) == []


# ---------------------------------------------------------------------------------------------------------------------
# the rooms
# ---------------------------------------------------------------------------------------------------------------------

PACKAGES = ("gbpo", "rewards", "evals")
# each may import those to its left
ORDER = {
    "gbpo.run": (
        "rewards_package recipe tables tools data environments rewards reward_hazards reward_trial models output "
        "processes preview rollouts report help_page completion train __main__"
    ).split(),
    "gbpo": "shared core trainer control run doctor __main__".split(),
    "gbpo.trainer": (
        "passes config metrics metric_definitions checkpoints rollout_log guards sampling bridge base gbpo"
    ).split(),
}


def graph(root=ROOT):
    """Every module of the project with the modules that it imports, under TYPE_CHECKING and in functions too."""
    paths = {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for package in PACKAGES
        for path in (root / package).rglob("*.py")
    }
    edges = {name: (imports_of(path, root) & paths.keys()) - {name} for name, path in paths.items()}
    # `from a import b`, with b a module, names both; the arrow is to b
    return {
        name: {one for one in found if not any(other.startswith(f"{one}.") for other in found)}
        for name, found in edges.items()
    }


def circle(edges):
    """Modules that import each other in a circle, in order; empty if there is none."""
    done, path = set(), []

    def visit(name):
        if name in path:
            return path[path.index(name) :]
        if name in done:
            return []
        path.append(name)
        found = next((ring for other in sorted(edges[name]) if (ring := visit(other))), [])
        path.pop()
        done.add(name)
        return found

    return next((ring for name in sorted(edges) if (ring := visit(name))), [])


def test_no_modules_import_each_other_in_a_circle():
    assert circle(graph()) == []


def test_a_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]


def arrows(package):
    """From room to room, of the modules directly in a package and its sub-packages."""
    prefix = f"{package}."
    return {
        (name.removeprefix(prefix).split(".")[0], other.removeprefix(prefix).split(".")[0])
        for name, found in graph().items()
        for other in found
        if name.startswith(prefix) and other.startswith(prefix)
        if name.removeprefix(prefix).split(".")[0] != other.removeprefix(prefix).split(".")[0]
    }


@pytest.mark.parametrize("package", ORDER)
def test_every_arrow_runs_down(package):
    order = ORDER[package]
    assert {room for arrow in arrows(package) for room in arrow} <= set(order)
    assert [arrow for arrow in arrows(package) if order.index(arrow[0]) <= order.index(arrow[1])] == []


def test_the_rooms_of_gbpo_are_few_and_hold_little_together():
    entries = {path.name for path in (ROOT / "gbpo").iterdir()} - {"__init__.py", "__pycache__", "README.md"}
    assert len(entries) <= 8
    assert 0 < len(arrows("gbpo")) <= 25


def test_no_module_shadows_the_standard_library():
    names = {name.rpartition(".")[2] for name in graph()}
    assert names & set(sys.stdlib_module_names) == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_no_two_classes_of_a_package_have_one_name(package):
    names = [
        node.name
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    # BPO is the name of the algorithm in Stable-Baselines3 and in rsl_rl
    assert sorted(name for name in set(names) - {"BPO"} if names.count(name) > 1) == []
