"""The pages: they are short, their links resolve, and their tables and commands agree with the code."""

import ast
import re
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest
from trl import GRPOConfig

import rewards
from gbpo import GBPOConfig
from gbpo.run import tables
from gbpo.run.recipe.arguments import RunArguments
from gbpo.trainer.config import CHOICES, HONOURED, REFUSED
from gbpo.trainer.guards.phase_times import PHASES
from gbpo.trainer.guards.ratio_metrics import _PERCENTILES
from gbpo.trainer.metric_definitions import METRICS

ROOT = Path(__file__).parents[1]
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
PAGES = sorted(name for name in TRACKED if name.endswith(".md"))


def without_code(text):
    """The prose of a page: blocks of code and code in lines may contain anything."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL))


def anchors(text):
    """The anchors that GitHub gives to the headings of a page."""
    found = []
    for heading in re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.M):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.append(slug if slug not in found else f"{slug}-{found.count(slug)}")
    return found


def broken_links(name, text, root=ROOT):
    """Relative links of a page, in Markdown or HTML, that lead to no file, or to no heading of a page."""
    found = []
    prose = without_code(text)
    for link in re.findall(r"\]\(([^)\s]+)\)", prose) + re.findall(r'(?:src|srcset|href)="([^"]+)"', prose):
        path, _, anchor = link.partition("#")
        if re.match(r"\w+:", link):
            continue
        target = (root / name).parent / path if path else root / name
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            found.append(link)
    return found


def test_the_first_page_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 160


@pytest.mark.parametrize("name", PAGES)
def test_links_resolve(name):
    assert broken_links(name, (ROOT / name).read_text()) == []


def test_a_broken_link_is_found(tmp_path):
    (tmp_path / "b.md").write_text("# It's `here`\n\n```\n# no heading\n```\n")
    text = '[1](b.md#its-here) [2](b.md#no-heading) [3](c.md) [4](#none) `[5](d.md)` <img src="e.svg"> [6](https://x)'
    (tmp_path / "a.md").write_text(text)
    assert broken_links("a.md", text, tmp_path) == ["b.md#no-heading", "c.md", "#none", "e.svg"]


# ---------------------------------------------------------------------------------------------------------------------
# tables
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", tables.PAGES)
def test_tables_are_up_to_date(name):
    text = (ROOT / name).read_text()
    assert tables.updated(text) == text, "run python -m gbpo.run.tables"


def test_every_table_is_on_a_page():
    texts = "".join((ROOT / name).read_text() for name in tables.PAGES)
    assert sorted(re.findall(r"<!-- table: (.+) -->", texts)) == sorted(tables.TABLES)


def test_a_stale_row_is_replaced():
    page = "before\n<!-- table: options of the loss of GRPO -->\n| `sapo` | stale |\n<!-- end of table -->\nafter\n"
    new = tables.updated(page)
    assert "stale" not in new and "| `delta` |" in new
    assert new.startswith("before\n") and new.endswith("<!-- end of table -->\nafter\n")


def test_bars_and_asterisks_are_escaped():
    assert tables._cell("|ρ − ρ*| of `time/*`") == r"\|ρ − ρ\*\| of `time/*`"


@pytest.mark.parametrize(
    ("page", "message"),
    [("no table", "The page has no table"), ("<!-- table: x -->\n<!-- end of table -->", "'x' is unknown")],
)
def test_pages_without_a_known_table_are_refused(page, message):
    with pytest.raises(ValueError, match=message):
        tables.updated(page)


def test_every_option_has_a_row():
    """The own options by type, default and meaning; those of GRPO's loss by name."""
    text = (ROOT / "gbpo/README.md").read_text()
    own = {f.name for f in fields(GBPOConfig)} - {f.name for f in fields(GRPOConfig)}
    assert {"optimizer_batch_size", "target_baseline"} <= own
    for name in own:
        assert re.search(rf"^\| `{name}` \| \w+ \| \S[^|]* \| \S", text, re.MULTILINE), name
    for name in set(CHOICES) | set(REFUSED).union(*HONOURED):
        assert f"`{name}`" in text, name
    recipes = (ROOT / "recipes/README.md").read_text()
    for field in fields(RunArguments):
        assert re.search(rf"^\| `{field.name}` \| [\w ]+ \| \S[^|]* \| \S", recipes, re.MULTILINE), field.name


def logged_names():
    """The names of metrics in the sources, as regular expressions: `{…}` in a formatted text stands for anything."""
    found = set()
    for path in (ROOT / "gbpo").rglob("*.py"):
        if path.name == "metric_definitions.py":
            continue
        nodes = list(ast.walk(ast.parse(path.read_text())))
        formatted = [node for node in nodes if isinstance(node, ast.JoinedStr)]
        parts = {id(part) for node in formatted for part in node.values}
        for node in formatted:
            found.add("".join(re.escape(x.value) if isinstance(x, ast.Constant) else r"\w+" for x in node.values))
        for node in nodes:
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
                found.add(re.escape(node.value))
    return found


def test_every_logged_metric_is_defined_and_every_defined_metric_is_logged():
    names = {name for name in logged_names() if re.fullmatch(r"(gbpo|time)/(\w|/|\\|\+)+", name)}
    assert len(names) > 25
    undefined = [name for name in names if not any(re.fullmatch(name, metric) for metric in METRICS)]
    assert undefined == []
    for metric in set(METRICS) - {"elapsed", "peak_memory_gb", "skipped_steps"}:
        assert any(re.fullmatch(name, metric) for name in names), f"{metric} is logged nowhere"
    assert {"elapsed", "peak_memory_gb", "skipped_steps"} <= logged_names()
    assert {f"time/{phase}" for phase in PHASES} == {name for name in METRICS if name.startswith("time/")}
    assert {f"gbpo/ratio_{name}" for name in _PERCENTILES} <= set(METRICS)


def test_every_reward_has_a_row():
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "rewards/README.md").read_text(), re.MULTILINE)
    assert set(rewards.reward_names()) <= set(rows)


def test_every_recipe_has_a_row():
    listed = re.findall(
        r"`(\w+)`", re.search(r"\| recipe \|.*?\n\n", (ROOT / "recipes/README.md").read_text(), re.S)[0]
    )
    assert {path.stem for path in (ROOT / "recipes").glob("*.yaml")} <= set(listed)


# ---------------------------------------------------------------------------------------------------------------------
# commands and code
# ---------------------------------------------------------------------------------------------------------------------

LIVING = [name for name in PAGES if name != "CHANGELOG.md" and not name.startswith("evals/studies/")]


@pytest.mark.parametrize("name", LIVING)
def test_commands_exist(name):
    text = (ROOT / name).read_text()
    for path in re.findall(r"(?<![\w/.])(?:recipes|launch|gbpo|rewards|evals|tests)/[\w/.]+\.(?:yaml|py)\b", text):
        example = path in ("recipes/mine.yaml",)
        assert example or (ROOT / path).is_file(), path
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make ([\w-]+)", text):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for module in re.findall(r"python -m ((?:gbpo|rewards|evals)(?:\.\w+)*)", text):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module
    for recipe in re.findall(r"gbpo (?:train|compare) ([a-z]\w+)(?![\w./])", text):
        assert (ROOT / "recipes" / f"{recipe}.yaml").is_file(), recipe


@pytest.mark.parametrize("name", LIVING)
def test_python_on_the_pages_is_python(name):
    text = (ROOT / name).read_text()
    for block in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        compile(block, name, "exec")
    for block in re.findall(r"^```diff\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for side, other in ("+-", "-+"):
            lines = [line[1:] for line in block.splitlines() if not line.startswith(other)]
            compile("\n".join(lines), f"{name}, the lines with {side}", "exec")


@pytest.mark.slow
def test_the_offline_script_trains_the_builtin_model(tmp_path, monkeypatch):
    """The script of gbpo/README.md, whose model and reward are the recipe's."""
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "gbpo/README.md").read_text(), re.MULTILINE | re.DOTALL)
    (block,) = [block for block in blocks if "local_model" in block]
    monkeypatch.chdir(tmp_path)
    names = {}
    assert "max_steps=100," in block and "logging_steps=20," in block
    exec(block.replace("max_steps=100,", "max_steps=10,").replace("logging_steps=20,", "logging_steps=10,"), names)
    (reward,) = [row["reward"] for row in names["trainer"].state.log_history if "reward" in row]
    assert reward > 0.2  # the model samples the right sum 22 % of the time before training


@pytest.mark.parametrize("side", "+-")
def test_both_sides_of_the_script_train(side, random_model, tmp_path, monkeypatch):
    """The script of the README for gbpo (+) and for TRL (-), with a tiny model and two steps."""
    (block,) = re.findall(r"^```diff\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    script = "\n".join(line[1:] for line in block.splitlines() if not line.startswith("-" if side == "+" else "+"))
    assert ("gbpo" in script) == (side == "+")
    for given, tiny in (
        ('"Qwen/Qwen2.5-0.5B"', repr(str(random_model))),
        ("Config(", "Config(max_steps=2, max_completion_length=4, use_cpu=True, bf16=False, report_to=[], "),
    ):
        assert given in script
        script = script.replace(given, tiny)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(script, names)
    assert names["trainer"].state.global_step == 2
    assert names["trainer"].args.num_iterations == 4
    logged = {name for row in names["trainer"].state.log_history for name in row}
    own = {name for name in logged if name.startswith(("gbpo/", "time/"))}
    assert own <= set(METRICS) and ("gbpo/target_ratio_mean" in own) == (side == "+")
