"""The registry: registered names, dotted paths, and the errors for wrong ones."""

import functools
import importlib
import pickle
import subprocess
import sys

import pytest
from trl.trainer.utils import get_callable_name, is_async_callable

from rewards import get_reward, reward_names
from tests.rewards.builders import ROOT

USER_MODULE = """
def shorter(completions, limit=10, **kwargs):
    return [float(len(text) < limit) for text in completions]

def strict(completions, *, solution):
    return [0.0 for _ in completions]

class Judge:
    def __init__(self, model, strictness=1):
        self.strictness = strictness
    def __call__(self, completions, **kwargs):
        return [float(self.strictness) for _ in completions]

class NotCallable:
    pass

NUMBER = 3
"""


@pytest.fixture
def user_package(tmp_path, monkeypatch):
    """A package with a user's own rewards, `own_rewards.kinds`, and modules that cannot be imported."""
    package = tmp_path / "own_rewards"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "kinds.py").write_text(USER_MODULE)
    (package / "broken.py").write_text("raise OSError('no licence')")
    (package / "leaves.py").write_text("raise SystemExit('no key')")
    (package / "imports.py").write_text("import no_such_package")
    monkeypatch.syspath_prepend(tmp_path)
    yield package
    for name in [name for name in sys.modules if name.startswith("own_rewards")]:
        del sys.modules[name]


def error_of(name, **config):
    with pytest.raises(ValueError) as caught:
        get_reward(name, **config)
    return str(caught.value)


REQUIRED_OPTIONS = {
    "soft_overlong": {"max_completion_length": 100, "soft_buffer": 20},
    "cosine": {"max_completion_length": 100},
    "judge": {"base_url": "http://127.0.0.1:9/v1", "model": "m", "template": "{completion}"},
    "reward_model": {"base_url": "http://127.0.0.1:9", "model": "m"},
}


# reasoning_gym needs its package: tests/run/data/test_reasoning_gym.py replaces the package
@pytest.mark.parametrize("name", [name for name in reward_names() if name != "reasoning_gym"])
def test_every_registered_reward_has_its_name_and_pickles(name):
    reward = get_reward(name, **REQUIRED_OPTIONS.get(name, {}))
    assert get_callable_name(reward) == name
    assert is_async_callable(reward) == (name in ("code", "cosine", "judge", "math", "reward_model"))
    pickle.loads(pickle.dumps(reward))


def test_options_are_passed_to_a_registered_reward():
    assert get_reward("math", workers=3).workers == 3


@pytest.mark.parametrize(("name", "nearest"), [("Maths", "math"), ("EXACT", "exact_match")])
def test_the_error_for_an_unknown_name_has_the_nearest_name_and_all_names(name, nearest):
    message = error_of(name)
    assert repr(name) in message and f"nearest known one is '{nearest}'" in message
    assert ", ".join(reward_names()) in message and "my_package.my_module.my_reward" in message


@pytest.mark.parametrize(
    ("name", "option", "value", "fix"),
    [
        ("majority_vote", "boxed", "false", "true or false"),  # a text is true
        ("majority_vote", "votes", 8.0, "a whole number or null"),
        ("math", "workers", True, "a whole number or null"),
        ("repetition", "ngram_size", 2.5, "a whole number"),
        ("repetition", "max_penalty", float("nan"), "a finite number"),
        ("length", "grader", "math", "Math"),
    ],
)
def test_a_value_of_another_type_is_refused(name, option, value, fix):
    with pytest.raises(ValueError, match=f"'{name}': {option}={value!r} has a type .* Write {fix}\\."):
        get_reward(name, **{option: value})


def test_values_of_the_types_of_the_options_are_taken():
    assert get_reward("math", workers=None, hard_limit=8).hard_limit == 8
    assert get_reward("code", allow_missing=["network"], tol=1e-6).allow_missing == ("network",)


@pytest.mark.parametrize(("name", "known"), [("math", "workers, hard_limit, memory_mb"), ("exact_match", "none")])
def test_an_unknown_option_of_a_registered_reward_is_refused(name, known):
    message = error_of(name, wokers=2)
    assert name in message and "'wokers'" in message and message.endswith(f"Its options: {known}.")


def test_a_dotted_function_is_returned_unchanged(user_package):
    reward = get_reward("own_rewards.kinds.shorter")
    assert reward is importlib.import_module("own_rewards.kinds").shorter


def test_a_dotted_function_with_options_is_a_partial_that_pickles(user_package):
    reward = get_reward("own_rewards.kinds.shorter", limit=3)
    assert isinstance(reward, functools.partial)
    assert pickle.loads(pickle.dumps(reward))(completions=["ab", "abc"]) == [1.0, 0.0]


def test_a_dotted_class_is_called_with_its_options(user_package):
    reward = get_reward("own_rewards.kinds.Judge", model="m", strictness=2)
    assert pickle.loads(pickle.dumps(reward))(completions=["a"]) == [2.0]


@pytest.mark.parametrize(
    ("path", "config", "parts"),
    [
        ("own_rewards.missing.shorter", {}, ["importing 'own_rewards.missing'", "ModuleNotFoundError", "PYTHONPATH"]),
        (
            "own_rewards.broken.shorter",
            {},
            ["importing 'own_rewards.broken'", "OSError: no licence", "Correct the module"],
        ),
        ("own_rewards.leaves.shorter", {}, ["SystemExit: no key", "Correct the module"]),
        ("own_rewards.imports.shorter", {}, ["No module named 'no_such_package'", "install what it imports"]),
        ("own_rewards/kinds.py", {}, ["is a file", "'kinds.NAME'"]),
        ("./own_rewards/kinds.py:shorter", {}, ["is a file", "'kinds.shorter'", "run the command in own_rewards"]),
        ("kinds.py", {}, ["is a file", "'kinds.NAME'", "Replace NAME"]),
        ("random.shorter", {}, ["'random' has no attribute 'shorter'", "give your file another name"]),
        ("own_rewards.kinds.longer", {}, ["'own_rewards.kinds' has no attribute 'longer'"]),
        ("own_rewards.kinds.NUMBER", {}, ["'NUMBER' is of type int, which cannot be called"]),
        ("own_rewards.kinds.NotCallable", {}, ["instances of the class cannot be called"]),
        ("own_rewards.kinds.Judge", {}, ["missing a required argument: 'model'"]),
        ("own_rewards.kinds.Judge", {"model": "m", "strict": 1}, ["'strict'", "Its options: model, strictness."]),
        ("own_rewards.kinds.strict", {"limit": 1}, ["'limit'", "Its options: completions, solution."]),
        (".shorter", {}, ["importing ''"]),
    ],
)
def test_the_error_for_a_wrong_path_or_option_is_one_line(user_package, path, config, parts):
    message = error_of(path, **config)
    assert repr(path) in message and "\n" not in message
    for part in parts:
        assert part in message


def test_importing_the_package_imports_no_backend():
    code = (
        "import sys, rewards; rewards.reward_names(); rewards.get_reward('exact_match')\n"
        "print([name for name in ('math_verify', 'sympy', 'pebble', 'torch', 'trl', 'gbpo') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
