"""Imports between the packages of gbpo/run go one way, also those inside functions and under TYPE_CHECKING."""

import ast
from pathlib import Path

RUN = Path(__file__).parents[2] / "gbpo" / "run"

# each package may import itself and the ones before it
LAYERS = ["recipe", "data", "rewards", "models", "output", "processes", "preview", "train", "__main__"]


def layer(path: Path) -> str:
    return path.relative_to(RUN).parts[0].removesuffix(".py")


def imported_layers(path: Path) -> set[str]:
    """Packages of gbpo/run that a file imports."""
    package = ("gbpo", "run", *path.relative_to(RUN).parts[:-1])
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom):
            continue
        base = package[: len(package) - node.level + 1] if node.level else ()
        module = (*base, *(node.module or "").split("."))
        for alias in node.names:
            names = tuple(part for part in (*module, alias.name) if part)
            if names[:2] == ("gbpo", "run"):
                found.add(names[2])
    return found


def test_every_package_imports_only_packages_before_it():
    files = [path for path in RUN.rglob("*.py") if path != RUN / "__init__.py"]
    assert {layer(path) for path in files} == set(LAYERS)
    arrows = {(layer(path), other, path.name) for path in files for other in imported_layers(path)}
    assert ("train", "preview", "train.py") in arrows and ("models", "recipe", "description.py") in arrows
    assert [arrow for arrow in arrows if LAYERS.index(arrow[1]) > LAYERS.index(arrow[0])] == []


def test_modules_of_a_package_do_not_import_each_other_in_a_circle():
    arrows: dict[str, set[str]] = {}
    for path in RUN.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 1:
                modules = [node.module] if node.module else [alias.name for alias in node.names]
                arrows.setdefault(str(path.with_suffix("")), set()).update(str(path.parent / m) for m in modules)

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        queue = [start]
        while queue:
            new = arrows.get(queue.pop(), set()) - seen
            seen |= new
            queue += new
        return seen

    assert arrows and not [module for module in arrows if module in reachable(module)]
