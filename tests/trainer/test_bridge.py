"""BridgeTrainer alone overrides or patches other libraries, and it calls the parts in the stated order."""

import ast
import importlib
import inspect
from collections import defaultdict, deque
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from trl import GRPOTrainer

from gbpo import GBPOTrainer
from gbpo.trainer.base import BaseTrainer
from gbpo.trainer.bridge import BridgeTrainer
from gbpo.trainer.passes.speedups import SPEEDUPS

ROOT = Path(__file__).parents[2]
LIBRARIES = ("trl", "transformers", "accelerate", "peft", "datasets")

# The methods that BridgeTrainer overrides, and why.
OVERRIDES = {
    "get_train_dataloader": "rows are text; accelerate would search them for tensors at every micro-batch",
    "_prepare_inputs": "micro-batches become passes",
    "_generate_and_score_completions": "resampling, and the rows of the passes",
    "_generate": "time, seeds of the engine, readable errors of its server",
    "_tokenize_prompts": "once per group",
    "_generate_single_turn": "a prompt is run once for all of its completions",
    "_calculate_rewards": "time and extra votes; which completions were scored; infinite rewards are refused",
    "_get_per_token_logps_and_entropies": "forward passes without padding",
    "compute_loss": "several passes per micro-batch; what was run is kept for metrics and guards",
    "training_step": "time; metrics after the backward; old log-probs from the first pass",
    "_get_grad_norm": "steps that are not finite are skipped",
    "_save_checkpoint": "written under a temporary name and renamed when complete",
    "_get_output_dir": "the temporary name of the checkpoint that is being saved",
    "_save_rng_state": "saves the completions and metrics of a generation too",
    "_load_rng_state": "restores the completions and metrics of a generation too",
    "_load_from_checkpoint": "loads weights that transformers has saved under the names of the Hub",
    "_load_best_model": "loads weights that transformers has saved under the names of the Hub",
    "_issue_warnings_after_load": "a tied weight that a checkpoint leaves out is not missing",
    "_get_train_sampler": "kept, so that a resumed run can skip the epochs that are done",
    "_init_training_state": "skips the order of prompts of the epochs that are done",
}

# The methods that other code overrides, and why: the benches measure TRL's own trainer from outside.
ELSEWHERE = {
    "gbpo.trainer.base": {"create_model_card": "a public method: a run writes a card of its own"},
    "evals.bench.timed": {
        "training_step": "measures the time of TRL's own trainer",
        "_prepare_inputs": "measures the time of TRL's own trainer",
        "_generate": "measures the time of TRL's own trainer",
        "_calculate_rewards": "measures the time of TRL's own trainer",
    },
    "evals.bench.loss": {"_get_per_token_logps_and_entropies": "the time of the loss excludes the model"},
    "evals.bench.generate": {"_generate": "counts the tokens of a generation"},
}

# Assignments to names of other libraries, or of objects that they own, and why.
PATCHES = {
    ("gbpo/trainer/bridge.py", "vars(module).update"): "TRL takes no dtype for the engine: its name `LLM`, in "
    "__init__; transformers looks for packed rows: its name `find_packed_sequence_indices`, in a forward pass",
    ("gbpo/trainer/bridge.py", "model.generate"): "a prompt is run once: for the time of one generation",
    # These change other libraries.
    (
        "rewards/answers/reasoning_gym.py",
        "vars(task_module)['eval']",
    ): "a scorer of reasoning-gym evaluates answers; a safe evaluator takes the place of the builtin",
    ("rewards/programs/sandbox/runner.py", "vars(builtins).update"): "inside the box, for the program that runs there",
    (
        "rewards/programs/suites/stand_ins.py",
        "vars(sys.modules[name]).update",
    ): "inside the box: it fills the modules that stand for pytest",
    ("rewards/programs/suites/tester.py", "vars(error).update"): "inside the box: an error gets its attributes",
}


SCRIPTS = ("runner", "sandlock_supervisor", "server", "tester")  # sources that a box runs


def modules():
    """The modules of the project with their paths, without scripts."""
    for package in ("gbpo", "rewards", "evals"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            if path.name != "__main__.py" and path.stem not in SCRIPTS:
                yield name, path


def overridden(kind):
    """By module of the project: methods of a class and its bases that override a method of a library.

    Hooks of callbacks and generated methods of dataclasses do not count.
    """
    theirs = [base for base in kind.__mro__ if base.__module__.split(".")[0] in LIBRARIES]
    found = defaultdict(set)
    for base in kind.__mro__:
        if base.__module__.split(".")[0] in ("gbpo", "rewards", "evals", __name__.split(".")[0]):
            found[base.__module__] |= {
                name
                for name, member in vars(base).items()
                if inspect.isfunction(member)
                and not name.startswith("on_")
                and name not in ("__init__", "__eq__", "__repr__", "__post_init__")
                and any(name in vars(one) for one in theirs)
            }
    return {module: methods for module, methods in found.items() if methods}


def test_only_the_bridge_overrides_methods_of_the_libraries():
    found = defaultdict(set)
    for name, _ in modules():
        for kind in vars(importlib.import_module(name)).values():
            if inspect.isclass(kind):
                for module, methods in overridden(kind).items():
                    found[module] |= methods
    assert found.pop("gbpo.trainer.bridge") == OVERRIDES.keys()
    assert found == {name: methods.keys() for name, methods in ELSEWHERE.items()}


def test_an_override_is_found():
    class Another(GBPOTrainer):
        def _compute_loss(self, model, inputs):
            return super()._compute_loss(model, inputs)

    assert overridden(Another)[__name__] == {"_compute_loss"}


def patches(source):
    """Assignments and deletions in a source that change another library, as text.

    These are attributes of imported modules, `generate` or `forward` of any object, and all uses of `setattr`, `vars`
    and `__dict__`.
    """
    tree = ast.parse(source)
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {(a.asname or a.name).split(".")[0] for a in node.names if a.name.split(".")[0] in LIBRARIES}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in LIBRARIES and not node.level:
            imported |= {a.asname or a.name for a in node.names}
    found = set()
    for node in ast.walk(tree):
        targets = []
        if isinstance(node, ast.Assign | ast.Delete):
            targets = node.targets
        elif isinstance(node, ast.AugAssign | ast.AnnAssign):
            targets = [node.target]
        for target in targets:
            root = target
            while isinstance(root, ast.Attribute | ast.Subscript):
                root = root.value
            theirs = isinstance(target, ast.Attribute) and isinstance(root, ast.Name) and root.id in imported
            method = isinstance(target, ast.Attribute) and target.attr in ("generate", "forward", "__call__")
            through = "vars(" in ast.unparse(target) or "__dict__" in ast.unparse(target)
            if theirs or method or through:
                found.add(ast.unparse(target))
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            reaches = bool(node.args) and ast.unparse(node.args[0]).split(".")[0] in imported
            if (called == "setattr" and reaches) or (called.startswith("vars(") and called.endswith("update")):
                found.add(called)
    return {text for text in found if not text.startswith("vars(module)[")}  # undoes `vars(module).update`


def test_only_the_bridge_patches_the_libraries():
    paths = [path for package in ("gbpo", "rewards", "evals") for path in (ROOT / package).rglob("*.py")]
    found = {(str(path.relative_to(ROOT)), text) for path in paths for text in patches(path.read_text())}
    assert found == PATCHES.keys()


@pytest.mark.parametrize(
    "line",
    [
        "from trl.trainer import utils\nutils._use_triton = lambda device: True",
        "import transformers\ntransformers.Trainer.log = print",
        "from trl import GRPOTrainer\nsetattr(GRPOTrainer, 'log', print)",
        "def f(trainer):\n    trainer.model.forward = print",
        "def f(module):\n    vars(module).update(LLM=1)",
        "def f(trainer):\n    trainer.__dict__['log'] = print",
    ],
)
def test_a_patch_is_found(line):
    assert patches(line)


# ---------------------------------------------------------------------------------------------------------------------
# the order of the parts
# ---------------------------------------------------------------------------------------------------------------------


class Recorder:
    """Stands for any part, and records the calls."""

    def __init__(self):
        self.calls = []

    def note(self, name, value=None):
        self.calls.append(name)
        return value

    @contextmanager
    def measure(self, phase, counts=True):
        self.calls.append(f"phase_times {phase}")
        yield

    def next_stream(self, step, mode):
        self.calls.append("sampling_seeds")
        return SimpleNamespace(getrandbits=lambda bits: 0)

    def add(self, inputs, prompts, generate):
        self.calls.append("extra_votes")
        return inputs

    def fill(self, batch, advantages, score, step, log):
        self.calls.append("resampling")
        return batch


@pytest.fixture
def bare(monkeypatch):
    """A trainer whose constructor was not run, and a record of its calls to TRL and to its parts."""
    seen = Recorder()

    def generates(self, inputs):
        seen.note("TRL generates and scores")
        self._generate(["1+1="])
        self._calculate_rewards(inputs, ["1+1="], ["2"], [[5]])
        ones = torch.ones(1, 1, dtype=torch.long)
        mask = {"prompt_mask": ones, "completion_mask": ones, "prompt_ids": ones, "completion_ids": ones}
        return mask | {"advantages": torch.ones(1), "sampling_per_token_logps": torch.zeros(1, 1)}

    monkeypatch.setattr(GRPOTrainer, "_generate_and_score_completions", generates)
    monkeypatch.setattr(GRPOTrainer, "_generate", lambda self, prompts: seen.note("TRL generates"))
    monkeypatch.setattr(GRPOTrainer, "_calculate_rewards", lambda self, *a: seen.note("TRL rewards", torch.ones(1, 1)))
    trainer = object.__new__(BaseTrainer)
    trainer.model = SimpleNamespace(training=True)
    trainer.state = SimpleNamespace(global_step=3)
    trainer.args = SimpleNamespace(steps_per_generation=1, gradient_accumulation_steps=1, vllm_mode="colocate")
    trainer.accelerator = SimpleNamespace(device=torch.device("cpu"), gather=lambda x: seen.note("gather", x))
    trainer.num_iterations, trainer._step, trainer.use_vllm = 1, 0, False
    trainer.vllm_importance_sampling_correction, trainer.vllm_generation = False, None
    trainer.reward_func_names, trainer.tools = ["a reward"], []
    trainer._metrics, trainer._logs = {"train": defaultdict(list)}, defaultdict(deque)
    return trainer, seen


def test_the_parts_are_called_in_the_stated_order(bare):
    """The numbers are those of `BridgeTrainer`'s docstring."""
    trainer, seen = bare
    trainer.use_vllm = True
    trainer.phase_times = trainer.sampling_seeds = trainer.extra_votes = trainer.resampling = seen
    trainer.weight_check = SimpleNamespace(check=lambda *args: seen.note("weight_check", {}), proven=False)
    trainer.curriculum = SimpleNamespace(
        record=lambda rewards: seen.note("curriculum records"), metrics=lambda: seen.note("curriculum metrics", {})
    )
    trainer.add_targets = lambda batch, advantages: seen.note("add_targets", batch)
    trainer.pass_plan = SimpleNamespace()
    trainer.rollout_log = SimpleNamespace(
        begin=lambda *args: seen.note("rollout_log begins"),
        graded=lambda *args: seen.note("rollout_log notes the rows"),
        add_draw=lambda *args: seen.note("rollout_log notes the draw", torch.zeros(1)),
        keep=lambda *args: seen.note("rollout_log notes what is kept"),
    )
    batch = trainer._generate_and_score_completions([{"prompt": "1+1="}])
    assert seen.calls == [
        "rollout_log begins",
        "TRL generates and scores",
        "phase_times generate",  # 1
        "sampling_seeds",  # 2
        "TRL generates",
        "phase_times reward",
        "extra_votes",  # 3
        "TRL rewards",  # 4
        "rollout_log notes the rows",
        "curriculum records",
        "weight_check",  # 5
        "gather",  # once per generation
        "add_targets",  # 6
        "rollout_log notes the draw",
        "resampling",  # 7
        "curriculum metrics",
        "rollout_log notes what is kept",
    ]
    assert [tuple(row) for row in batch["rows"]] == [(1, 1, True, 0)]  # 8: the rows that `pass_plan` arranges


def test_without_parts_a_generation_is_that_of_trl(bare):
    trainer, seen = bare
    trainer._generate_and_score_completions([{"prompt": "1+1="}])
    assert seen.calls == ["TRL generates and scores", "TRL generates", "TRL rewards"]


def test_without_parts_scores_and_loss_are_those_of_trl(bare, monkeypatch):
    trainer, seen = bare
    scores = (torch.zeros(1, 1), None, None)
    monkeypatch.setattr(
        GRPOTrainer, "_get_per_token_logps_and_entropies", lambda self, *a, **k: seen.note("TRL scores", scores)
    )
    monkeypatch.setattr(GRPOTrainer, "compute_loss", lambda self, *a, **k: seen.note("TRL loss", torch.ones(())))
    monkeypatch.setattr(GRPOTrainer, "_prepare_inputs", lambda self, batch: seen.note("TRL inputs", batch))
    monkeypatch.setattr(GRPOTrainer, "_generate_single_turn", lambda self, *a: seen.note("TRL turn"))
    monkeypatch.setattr(GRPOTrainer, "_tokenize_prompts", lambda self, p: seen.note("TRL tokens", (p, None, {})))
    trainer._buffered_inputs, trainer._is_vlm, trainer.environment_factories = None, False, None
    ids = torch.ones(1, 2, dtype=torch.long)
    assert trainer._get_per_token_logps_and_entropies(None, ids, ids, 1) is scores
    trainer._prepare_inputs({})
    trainer.model = SimpleNamespace(training=False)
    trainer.compute_loss(trainer.model, {})
    trainer._generate_single_turn([[5]], None, {}, 1)
    trainer._tokenize_prompts(["1+1="])
    assert seen.calls == ["TRL scores", "TRL inputs", "TRL loss", "TRL turn", "TRL tokens"]


def test_the_defaults_of_the_parts_do_nothing():
    trainer = object.__new__(BridgeTrainer)
    assert not any(name in trainer.speedups for name in SPEEDUPS)
    assert trainer.extra_votes.add([{"prompt": "a"}], ["a"], None) == [{"prompt": "a"}]
    parts = ("resampling", "curriculum", "sampling_seeds", "weight_check", "scorer", "pass_plan", "rollout_log")
    assert [getattr(trainer, name) for name in parts] == [None] * len(parts)
