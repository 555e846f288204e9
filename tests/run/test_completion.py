"""The completion of the command in a real bash."""

import shutil
import subprocess
import sys

import pytest

import gbpo.__main__ as command
from gbpo.run import completion

pytestmark = pytest.mark.slow
_PRESS_TAB = """
source "$0"
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_shtab_gbpo 2> /dev/null
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    """`tab(*words)` → what bash proposes for the last word."""
    folder = tmp_path_factory.mktemp("completion")
    (folder / "mine.yaml").write_text("")
    written = subprocess.run([sys.executable, "-m", "gbpo", "completion", "bash"], capture_output=True, text=True)
    assert written.returncode == 0 and not written.stderr, written.stderr
    (folder / "gbpo.bash").write_text(written.stdout)

    def press(*words):
        line = ["bash", "-c", _PRESS_TAB, str(folder / "gbpo.bash"), *words]
        return subprocess.run(line, cwd=folder, capture_output=True, text=True, check=True).stdout.split()

    return press


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_recipes_fields_and_values(tab):
    assert tab("gbpo", "") == list(command.COMMANDS)
    assert tab("gbpo", "train", "tiny_ma") == ["tiny_math"]
    assert tab("gbpo", "train", "mi") == ["mine.yaml"]
    assert tab("gbpo", "train", "tiny_math", "--target_b") == ["--target_baseline"]
    assert tab("gbpo", "train", "tiny_math", "--bf16", "false", "--learning") == ["--learning_rate"]  # one spelling
    assert tab("gbpo", "train", "tiny_math", "--target_baseline", "") == ["median", "exact", "mean"]
    assert tab("gbpo", "train", "tiny_math", "--bf16", "f") == ["false"]
    assert tab("gbpo", "train", "tiny_math", "--reward_funcs", "math", "bo") == ["boxed"]
    assert tab("gbpo", "train", "--proc") == ["--processes"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_the_other_commands(tab):
    assert tab("gbpo", "compare", "tiny_math", "--see") == ["--seed", "--seeds"]  # a field and an option
    assert tab("gbpo", "evaluate", "runs/mine", "--ref") == ["--reference"]
    assert tab("gbpo", "control", "control/cartp") == ["control/cartpole"]
    assert tab("gbpo", "control", "tiny_ma") == []
    assert tab("gbpo", "recipes", "show", "tiny_ma") == ["tiny_math"]
    assert tab("gbpo", "bench", "train", "--gr") == ["--growth"]
    assert tab("gbpo", "completion", "") == list(completion.SHELLS)
