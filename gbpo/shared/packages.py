"""The folders beside gbpo in a checkout, which an installed wheel holds inside gbpo: rewards, evals and recipes."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

_INSIDE = Path(__file__).parents[1]


def companion(name: str) -> ModuleType:
    """A module of the packages `rewards` and `evals`.

    >>> companion("rewards.check").__name__.endswith("rewards.check")
    True
    """
    top = name.split(".")[0]
    if (_INSIDE / top).is_dir():
        return import_module(f"gbpo.{name}")
    found = find_spec(top)
    if found is not None and found.origin and not Path(found.origin).is_relative_to(import_root()):
        raise ImportError(
            f"{found.origin} hides the package {top!r} of gbpo, which no command can do without. Give it another name, "
            f"such as my_{top}."
        )
    return import_module(name)


def launch_words() -> list[str]:
    """What follows `python` or `accelerate launch` to run a recipe: `launch/gbpo.py` in a checkout, else the module."""
    file = import_root() / "launch" / "gbpo.py"
    return [str(file)] if file.is_file() else ["-m", "gbpo.run"]


def install_command(extra: str) -> str:
    """The command that installs an extra of gbpo: from the checkout, or by the name of the installed package.

    >>> install_command("evals").endswith("[evals]'")
    True
    """
    root = import_root()
    if not (root / "pyproject.toml").is_file():
        return f"pip install 'gbpo[{extra}]'"
    return f"pip install -e '{'.' if Path.cwd() == root else root}[{extra}]'"


def check_installed(package: str, extra: str, command: str) -> None:
    """Raise `ImportError` if a package of an extra is missing that a command needs."""
    if find_spec(package) is None:
        raise ImportError(f"{command} needs {package}, which is not installed: {install_command(extra)}.")


def import_root() -> Path:
    """The folder from which gbpo is imported: the checkout, or the folder of installed packages."""
    return _INSIDE.parent


def recipes_folder() -> Path:
    """The folder of the shipped recipes."""
    inside = _INSIDE / "recipes"
    return inside if inside.is_dir() else _INSIDE.parent / "recipes"


def shipped_recipes() -> dict[str, Path]:
    """The shipped recipes by name, for example `"tiny_math"` and `"control/cartpole"`."""
    folder = recipes_folder()
    return {str(path.relative_to(folder).with_suffix("")): path for path in sorted(folder.rglob("*.yaml"))}


def find_recipe(name: str) -> Path:
    """The file of a recipe that is given by its path or, if it is a shipped one, by its name.

    A file in the working directory comes first. The folder of a shipped recipe can be left out.

    >>> find_recipe("cartpole").name
    'cartpole.yaml'
    """
    path = Path(name).expanduser()
    if path.exists() or path.suffix:
        return path
    shipped = shipped_recipes()
    found = [file for known, file in shipped.items() if name in (known, known.rpartition("/")[2])]
    return found[0] if len(found) == 1 else path
