"""The command `gbpo`, which is also `python -m gbpo`. It imports a command only when it is used.

gbpo train RECIPE [--field value …]     RECIPE is a file, or the name of a shipped recipe such as tiny_math
gbpo COMMAND --help                     what a command takes
"""

import os
import shlex
import shutil
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from .shared.nearest import nearest
from .shared.packages import check_installed, companion, launch_words, recipes_folder, shipped_recipes
from .shared.version import __version__

COMMANDS = {
    "train": ("gbpo.run.train", "fine-tune a model with a recipe; --processes N starts N processes"),
    "compare": ("evals.compare.command", "run algorithms side by side over seeds, with intervals"),
    "evaluate": ("evals.evaluate.command", "mean@k, pass@k and majority@k of models"),
    "report": ("gbpo.run.report.command", "write the page of a run or of a comparison: curves, samples, how it ended"),
    "rollouts": ("gbpo.run.rollouts.command", "read the completions of a run; compute their rewards again"),
    "check": ("rewards.check", "find reference answers that a reward cannot grade"),
    "doctor": ("gbpo.run.preview.doctor", "what this machine can run, and what a recipe lacks"),
    "recipes": ("", "list the shipped recipes; show or copy one"),
    "control": ("gbpo.control.train", "train BPO or PPO in an environment"),
    "completion": ("", "print the script that completes commands and fields in bash or zsh"),
    "theory": ("evals.theory.command", "check the theorems of the paper"),
    "bench": ("evals.bench.__main__", "measure speed and memory"),
}
# what a command needs beyond the core: a package, and the extra that installs it
_NEEDS = dict.fromkeys(("compare", "evaluate", "theory"), ("scipy", "evals"))
_NEEDS |= {"control": ("stable_baselines3", "control")}
_RECIPES_USAGE = "gbpo recipes [show NAME | copy NAME [FILE]]"
_RECIPES_HELP = f"""usage: {_RECIPES_USAGE}

Without arguments, list the shipped recipes. 'show' prints a recipe. 'copy'
writes it to FILE (NAME.yaml), for you to change. recipes/README.md explains the
fields."""
_COMPLETION_USAGE = "gbpo completion bash|zsh"
_COMPLETION_HELP = f"""usage: {_COMPLETION_USAGE}

Print a script with which the shell completes commands, recipes, fields and
their values. Write it to a file once:

  bash: mkdir -p ~/.local/share/bash-completion/completions
        gbpo completion bash > ~/.local/share/bash-completion/completions/gbpo
  zsh:  gbpo completion zsh > FOLDER/_gbpo, with a FOLDER of $fpath

bash reads the file if the package bash-completion is installed. Without it, add
to ~/.bashrc:
source ~/.local/share/bash-completion/completions/gbpo"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command.

    Args:
        argv: `COMMAND [arguments]`; by default the arguments of this process.

    Raises:
        SystemExit: With the status of the command; 2, after one line, for bad input; 130 after an interrupt.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        return
    name, rest = words[0], words[1:]
    if name in ("-V", "--version"):
        print(f"gbpo {__version__}")
        return
    if name not in COMMANDS:
        _refuse(
            f"Unknown command {name!r}. Did you mean 'gbpo {nearest(name, COMMANDS)}'? 'gbpo --help' lists them all"
        )
    if name == "recipes":
        _recipes(rest)
    elif name == "completion":
        _completion(rest)
    elif name == "train" and _takes("--processes", rest):
        _train_in_processes(rest)
    else:
        try:
            _check_needs(name)
        except ImportError as error:
            _refuse(str(error).removesuffix("."))
        if str(Path.cwd()) not in sys.path:
            sys.path.append(str(Path.cwd()))  # it can hold the user's own rewards, as with python -m
        try:
            _module(COMMANDS[name][0]).main(rest)
        except KeyboardInterrupt:
            raise SystemExit(130) from None


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(["usage: gbpo COMMAND [arguments]", "", *lines, "", "gbpo COMMAND --help explains a command."])


def _module(name: str) -> ModuleType:
    """The module of a command, in a checkout or in the wheel."""
    return import_module(name) if name.startswith("gbpo.") else companion(name)


def _takes(flag: str, words: Sequence[str]) -> bool:
    return any(word == flag or word.startswith(f"{flag}=") for word in words)


def _train_in_processes(words: list[str]) -> None:
    """Replace this process by `torchrun` with N processes on this machine, on its GPUs or on the CPU."""
    place = next(i for i, word in enumerate(words) if word.partition("=")[0] == "--processes")
    flag, _, count = words[place].partition("=")
    used = 1 if count else 2
    count = count or (words[place + 1] if place + 1 < len(words) else "")
    if not count.isdecimal() or int(count) < 1:
        _refuse(f"{flag} {count or 'without a value'} starts nothing. Write the number of processes, one per GPU")
    rest = words[:place] + words[place + used :]
    launch = ["--standalone", "--nproc-per-node", count, *launch_words(), *rest]
    print(f"gbpo: {shlex.join(['torchrun', *launch])}", flush=True)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as torchrun would, with a warning
    os.execv(sys.executable, [sys.executable, "-m", "torch.distributed.run", *launch])


def _recipes(words: list[str]) -> None:
    shipped = shipped_recipes()
    if words in ([], ["list"]):
        width = max(map(len, shipped))
        lines = [f"{name:<{width}}  {_first_sentence(path)}" for name, path in shipped.items()]
        _show("\n".join([*lines, "", f"{_RECIPES_USAGE}, from {recipes_folder()}"]))
        return
    if words[0] in ("-h", "--help"):
        print(_RECIPES_HELP)
        return
    if words in (["show"], ["copy"]):
        _refuse(f"No recipe is named, so there is nothing to {words[0]}. Write gbpo recipes {words[0]} tiny_math")
    if words[0] not in ("show", "copy") or len(words) > (3 if words[0] == "copy" else 2):
        _refuse(f"{' '.join(words)!r} is not a request. Write {_RECIPES_USAGE}")
    action, name, *target = words
    if name not in shipped:
        _refuse(f"No shipped recipe is named {name!r}. Did you mean {nearest(name, shipped)!r}?")
    if action == "show":
        _show(shipped[name].read_text().rstrip("\n"))
        return
    path = Path(target[0] if target else f"{name.rpartition('/')[2]}.yaml")
    if path.exists():
        _refuse(f"{path} exists and is not overwritten. Write another name: gbpo recipes copy {name} FILE")
    try:
        shutil.copyfile(shipped[name], path)
    except OSError as error:
        _refuse(f"{path} cannot be written ({error.strerror}). Give a file in a folder that exists and can be written")
    print(f"{path} is a copy of the recipe {name}. Run it with: gbpo train {path}")


def _first_sentence(recipe: Path) -> str:
    """The first sentence of the header of a recipe, which can go on in the next line."""
    header = recipe.read_text().partition("\n#\n")[0].replace("\n#", "")
    return header.removeprefix("# ").partition(". ")[0].removesuffix(".") + "."


def _show(page: str) -> None:
    try:
        print(page, flush=True)
    except BrokenPipeError:  # the reader, such as `head`, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _completion(words: list[str]) -> None:
    from .run.completion import SHELLS, script

    if words in (["-h"], ["--help"]):
        print(_COMPLETION_HELP)
        return
    if not words:
        _refuse(f"No shell is named, so no script can be printed. Write {_COMPLETION_USAGE}")
    if len(words) != 1 or words[0] not in SHELLS:
        _refuse(f"{' '.join(words)!r} is not a shell that can complete. Write {_COMPLETION_USAGE}")
    _show(script(words[0], {name: (text, _parser(name)) for name, (_, text) in COMMANDS.items()}))


def _parser(name: str) -> ArgumentParser | None:
    """The parser of a command, if it has one and its packages are installed."""
    try:
        _check_needs(name)
        return getattr(_module(COMMANDS[name][0]), "make_parser", lambda: None)() if COMMANDS[name][0] else None
    except ImportError as error:
        print(f"gbpo: warning: the options of 'gbpo {name}' are not completed: {error}", file=sys.stderr)
        return None


def _check_needs(name: str) -> None:
    check_installed(*_NEEDS.get(name, ("gbpo", "")), f"gbpo {name}")


def _refuse(message: str) -> NoReturn:
    print(f"gbpo: error: {message}{'' if message.endswith('?') else '.'}", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":  # worker processes of the rewards import this file too
    main()
