"""The modules of `evals`: no import circles, no two classes with the same name, no names of the standard library."""

import ast
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "evals").rglob("*.py"))


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in FILES}


def imports_of(name):
    """Modules of `evals` that a module imports, also below functions and `if TYPE_CHECKING`."""
    path = MODULES[name]
    package = name.split(".") if path.stem == "__init__" else name.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            parent = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*parent, *([node.module] if node.module else [])])
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {module for module in found if module in MODULES and MODULES[module].stem != "__init__"}


def test_no_module_imports_itself_through_others():
    graph = {name: imports_of(name) for name in MODULES}
    assert graph["evals.report.page"] >= {"evals.report.analysis", "evals.shared.results"}
    for start in graph:
        reached, waiting = set(), list(graph[start])
        while waiting:
            module = waiting.pop()
            assert module != start, f"{start} is in an import circle"
            if module not in reached:
                reached.add(module)
                waiting += graph[module]


def test_every_class_has_a_name_of_its_own():
    names = Counter(
        node.name for path in FILES for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)
    )
    assert {name for name, count in names.items() if count > 1} == set()


def test_no_module_has_the_name_of_a_standard_module():
    assert {path.stem for path in FILES if path.stem in sys.stdlib_module_names} == set()
