"""The report of a comparison: its texts, its safety, and its page in a browser."""

import dataclasses
import math
import random
import re
import time
from html.parser import HTMLParser

import pytest
from matplotlib.image import imread

from evals.report import command, page
from evals.report.analysis import Analysis, PointSummary
from evals.report.answer import answer, console, details, warning
from evals.report.curves import curve
from evals.report.differences import GridDifference, PointDifference
from evals.report.differing_samples import differing_samples
from evals.report.formatting import signed
from evals.report.heat_maps import heat_maps
from evals.report.overview import overview
from evals.report.stability import Sign
from evals.shared.estimates import BOOTSTRAP_T, CLOPPER_PEARSON, STUDENT_T, Interval
from evals.shared.results import Cell, Evaluation, Results, label
from gbpo.shared.pages.formatting import amount, duration, number, visible

LONG = "gbpo:target_baseline=exact,overshoot_slope=0.2"
ALGORITHMS = ["grpo", "gbpo", LONG]
GRID = {"epsilon": [0.2, 0.5], "num_iterations": [1, 4, 16]}
HOSTILE = [
    "<script>document.title = 'owned'</script><img src=http://127.0.0.1:9/x.png onerror=alert(1)>",
    "</textarea></pre></script><!-- \"'><svg onload=alert(2)>",
    "\x1b[31mred\x1b[0m \x00 \u202egnp.exe\u202c \ud800 \u0627\u0644\u062c\u0648\u0627\u0628 {{ 7 * 7 }} {% raw %}",
    "x" * 100_000,
    "",
]


def interval(centre, half, n):
    return Interval(centre, centre - half, centre + half, n) if n > 1 else Interval(centre, None, None, n)


def evaluation(rng, level, questions=20):
    scores = [round(min(1.0, max(0.0, rng.gauss(level, 0.25))) * 8) / 8 for _ in range(questions)]
    texts = [f"Adding the tens and the ones gives {q + rng.randint(0, 2)}." for q in range(questions)]
    return Evaluation(200, 8, scores, [round(8 * s) for s in scores], scores, scores, texts, 12.0, 0.0, 3.2)


def made_up(algorithms=ALGORITHMS, grid=GRID, seeds=5, steps=60, failed=(), missing=()):
    """A made-up comparison and its analysis. `failed` and `missing` are indices of cells."""
    rng = random.Random(0)
    settings = [{}]
    for field, values in grid.items():
        settings = [setting | {field: value} for setting in settings for value in values]
    cells, summaries, differences, signs = [], [], [], {}
    for setting in settings:
        hard = setting.get("epsilon", 0.2) * math.log2(1 + setting.get("num_iterations", 1))
        for place, algorithm in enumerate(algorithms):
            top = 0.55 - 0.02 * place - (0.25 if place == 0 else 0.02) * hard
            done = 0
            for seed in range(seeds):
                folder = f"cells/{algorithm}/{label(setting)}/seed-{seed}"
                command = f"python launch/gbpo.py recipes/tiny_math.yaml --algorithm {algorithm} --seed {seed}"
                cell = Cell(algorithm, setting, seed, "done", folder, command)
                if len(cells) in failed:
                    cell.status, cell.reason = "failed", "exit status 1: the reward <failed> on all completions"
                    cell.tail = [
                        "Traceback (most recent call last):",
                        "\x1b[31mValueError\x1b[0m: <b>no</b> completion",
                    ]
                elif len(cells) in missing:
                    cell.status = "missing"
                else:
                    done += 1
                    log = [10 * (n + 1) for n in range(steps)]
                    rise = [top * (1 - math.exp(-n / steps * 6)) + 0.2 * math.exp(-n / steps * 6) for n in range(steps)]
                    noise = lambda size: [rng.gauss(0, size) for _ in range(steps)]  # noqa: E731
                    cell.series = {
                        "step": log,
                        "reward": [r + e for r, e in zip(rise, noise(0.02), strict=True)],
                        "eval_reward": [
                            r + e if n % 5 == 4 else None
                            for n, (r, e) in enumerate(zip(rise, noise(0.015), strict=True))
                        ],
                        "entropy": [
                            1.2 * math.exp(-n / steps * (1 + hard)) + abs(e) for n, e in enumerate(noise(0.02))
                        ],
                        "grad_norm": [abs(1 + e) * (400 if rng.random() < 0.02 else 1) for e in noise(0.2)],
                        "gbpo/outside_bounds": [abs(0.05 * hard + e) for e in noise(0.01)],
                        "gbpo/ratio_p01": [0.8 - 0.1 * hard + e for e in noise(0.02)],
                        "gbpo/ratio_p99": [1.3 + 0.3 * hard + e for e in noise(0.04)],
                        "completions/mean_length": [12 + e for e in noise(0.5)],
                    }
                    cell.seconds, cell.train_seconds, cell.tokens, cell.peak_memory_gb = 61.0, 54.0, 1.2e6, 0.61
                    cell.last = cell.best = evaluation(rng, top)
                cells.append(cell)
            collapsed = min(done, round(done * (hard > 0.9) * (0.8 if place == 0 else 0.2)))
            for cell in [c for c in cells[-seeds:] if c.status == "done"][:collapsed]:
                signs[cell.folder] = [
                    Sign(180, "entropy", "0.05 nats per token, below 5 % of 1.20"),
                    Sign(220, "reward", "0.21, half of its rise to 0.43 is lost"),
                ]
            last = interval(top + 0.0123, 0.04, done) if done else None
            summaries.append(
                PointSummary(
                    setting, algorithm, done, seeds - done, last, last, last,
                    {k: interval(top + k / 40, 0.02, done) for k in (4, 8)} if done else {}, last, last, last,
                    done // 2, *((120.0, 60.0, 23_456.0, 812_345.0, 31.0) if done else (None,) * 5), 54.0, 0.61,
                    collapsed, {"entropy": collapsed} if collapsed else {}, 0.08, 1.21, interval(0.34, 0.1, seeds), 1.2,
                    (0.71, 1.46), 0.083, 3.2,
                )
            )  # fmt: skip
            if place and done and summaries[-1 - place].seeds:
                gap = interval(top - summaries[-1 - place].last.estimate, 0.03 + 0.02 * place, done)
                verdict = f"{algorithm} is better than {algorithms[0]} by {gap.estimate:.3f} on {done} seeds."
                better = interval(0.84, 0.1, done)
                differences.append(
                    PointDifference(
                        setting, algorithm, gap, 0.04 if done > 1 else None, gap, gap, gap, gap, gap, better, verdict
                    )
                )
    questions = [{"prompt": f"What is {q} + 1?", "gold": str(q + 1)} for q in range(20)]
    results = Results(
        command="python -m evals.compare recipes/tiny_math.yaml --algorithms " + " ".join(algorithms),
        created="2026-01-02T03:04:05+00:00",
        git_revision="0123456789abcdef0123456789abcdef01234567-dirty",
        versions={"torch": "2.9.0", "trl": "1.16.0", "vllm": None},
        hardware={"cpu": "two cores of something", "cores": 2, "memory_gb": 8.0, "gpus": []},
        recipe="recipes/tiny_math.yaml",
        recipe_text="model_name_or_path: builtin:tiny_math\nepsilon: 0.2\n",
        overrides=["--max_steps", "600"],
        algorithms=algorithms,
        grid=grid,
        seeds=list(range(seeds)),
        evaluation={"samples": 8, "temperature": 0.6, "top_p": 0.95, "test questions": 20},
        questions=questions,
        start=evaluation(rng, 0.2),
        notes=["At num_iterations=1 with the exact target, gbpo takes the same steps as grpo."],
        cells=cells,
    )
    thresholds = [
        f"{label(s) or 'Threshold'}: 0.412, the final validation reward of {algorithms[0]}." for s in settings
    ]
    overall = []
    if len(settings) > 1 and differences:
        gap = differences[0].last
        sentences = [f"Over the whole grid, {algorithms[1]} beats {algorithms[0]}.", "Each at its best grid point."]
        overall.append(GridDifference(algorithms[1], gap, settings[0], settings[1], gap, sentences))
    return results, Analysis(algorithms[0], thresholds, summaries, differences, overall, signs)


class Page(HTMLParser):
    """Elements of a page with their attributes, and its text without scripts and styles."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.texts, self._in = [], [], None
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._in = tag

    def handle_data(self, data):
        if self._in not in ("script", "style") and data.strip():
            self.texts.append(data.strip())

    def handle_endtag(self, tag):
        self._in = None


def written(folder, results, analysis):
    page.write(results, analysis, folder)
    return (folder / "report.html").read_text(), (folder / "summary.md").read_text()


SHAPES = {
    "one seed": {"seeds": 1},
    "no grid": {"grid": {}},
    "one field": {"grid": {"epsilon": [0.2, 0.3, 0.5]}},
    "three fields": {"grid": {"epsilon": [0.2, 0.5], "num_iterations": [1, 4], "beta": [0.0, 0.1]}, "seeds": 2},
    "one algorithm": {"algorithms": ["grpo"], "seeds": 2},
    "six algorithms": {"algorithms": [*ALGORITHMS, "gbpo:a=1", "gbpo:b=2", "gbpo:" + "c" * 60], "seeds": 2},
    "one algorithm failed": {"grid": {}, "failed": range(5, 10)},
    "all failed": {"failed": range(90)},
    "all missing": {"missing": range(90)},
}


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """18 grid points × algorithms with a failed and a missing run, and hostile strings in every text."""
    results, analysis = made_up(failed={7}, missing={8})
    for cell in results.cells:
        if cell.last:
            cell.last.scores[: len(HOSTILE)] = [float(ALGORITHMS.index(cell.algorithm) == 1)] * len(HOSTILE)
            cell.last.completions[: len(HOSTILE)] = HOSTILE
    results.questions[0] = {"prompt": HOSTILE[0], "gold": HOSTILE[1]}
    results.notes.append(HOSTILE[0])
    results.cells[7].tail.append(HOSTILE[1])
    folder = tmp_path_factory.mktemp("full")
    html, summary = written(folder, results, analysis)
    return folder, results, analysis, html, summary


@pytest.mark.sweep
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_a_comparison_has_a_report(shape, tmp_path):
    results, analysis = made_up(**SHAPES[shape])
    html, summary = written(tmp_path, results, analysis)
    text = " ".join(Page(html).texts)
    for versus in analysis.differences:
        assert visible(versus.verdict).split(" is better")[1] in text
    assert ("runs did not finish" in text) == ("failed" in shape or "missing" in shape)
    assert ("No run finished, so there is nothing to compare." in text) == shape.startswith("all ")
    assert ('class="map"' in html) == bool(results.grid and any(row.seeds for row in analysis.summaries))
    assert summary.startswith("# tiny\\_math\n")
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "summary.md", "figures"}


def test_one_seed_has_no_interval(tmp_path):
    html, summary = written(tmp_path, *made_up(seeds=1))
    text = " ".join(Page(html).texts)
    for claim in ("95 %", "equally good. [", "no significant difference"):
        assert claim not in text + summary
    assert not re.search(r"\[[−+]?\d\.\d+, ", text + summary)
    assert text.count("With one seed there is no confidence interval: any difference may be due to chance.") == 1
    for page_text in (text, summary):  # also true if all other seeds failed
        assert "There are no confidence intervals, because they need two finished seeds." in page_text
    assert "is correct (unbiased estimate). A sample is correct if its reward is 1." in text
    assert '"low":null' in html
    assert not re.search(r'"low":\[', html)


def test_the_report_names_the_interval_methods_of_the_code(tmp_path):
    results, analysis = made_up()
    html, summary = written(tmp_path, results, analysis)
    for text in (" ".join(Page(html).texts), summary):
        for method in (STUDENT_T, BOOTSTRAP_T, CLOPPER_PEARSON):
            assert method in text
            text = text.replace(method, "")
        assert not re.search(r"bootstrap|percentile interval|student|clopper|t interval|normal interval", text, re.I)


def test_the_report_names_the_reward_in_which_collapses_are_counted(tmp_path):
    results, analysis = made_up(seeds=2)
    html, summary = written(tmp_path / "one", results, analysis)
    trained_on = "are read from reward and, in the validations, eval_reward."
    assert trained_on in html and trained_on in summary.replace("\\", "")
    results.evaluation["reward_funcs"] = ["exact_match"]
    for cell in results.cells:
        cell.series["eval_rewards/exact_match/mean"] = cell.series["eval_reward"]
    named = "are read from rewards/exact_match/mean and, in the validations, eval_rewards/exact_match/mean."
    html, summary = written(tmp_path / "two", results, analysis)
    assert named in html and named in summary.replace("\\", "")


def test_tables_contain_the_numbers_of_the_analysis(full):
    _, _, analysis, html, summary = full

    def cells(name):
        body = html.split(f'<table id="{name}" class="stacked">')[1].split("</table>")[0]
        return [
            [re.sub(r"<[^>]+>", " ", cell).replace("−", "-").split() for cell in re.findall(r"<td.*?</td>", row)]
            for row in re.findall(r'<tr><th scope="row">.*?</tr>', body)
        ]

    quality, diversity, versus, cost, stability = map(cells, ("quality", "diversity", "versus", "cost", "stability"))
    assert len(quality) == len(analysis.summaries) == 18
    assert len(versus) == len(analysis.differences) == 12
    for row, line in zip(analysis.summaries, quality, strict=True):
        assert line[0][0] == str(row.seeds)
        assert line[1] == [f"{row.last.estimate:.3f}", f"[{row.last.low:.3f},", f"{row.last.high:.3f}]"]
    for row, line in zip(analysis.summaries, diversity, strict=True):
        for found, cell in zip((row.pass_at[4], row.pass_at[8], row.entropy), line, strict=True):
            assert cell == [f"{found.estimate:.3f}", f"[{found.low:.3f},", f"{found.high:.3f}]"]
    for comparison, line in zip(analysis.differences, versus, strict=True):
        gap = comparison.last
        assert line[0] == [f"{gap.estimate:+.3f}", f"[{gap.low:+.3f},", f"{gap.high:+.3f}]"]
        assert line[1] == ["0.040"]
        assert line[7][0] == f"{comparison.improvement.estimate:.3f}"
    assert cost[0] == [
        *(["2", "of", "5"], ["120"], ["60"], ["23.5", "k"], ["812", "k"], ["31", "s"], ["54", "s"], ["0.61"]),
    ]
    assert stability[-3][:4] == [["4", "of", "5"], ["entropy", "4"], ["0.080"], ["1.21", "→", "0.34"]]
    last = analysis.differences[-1].last
    assert f"| {last.estimate:+.3f} [{last.low:+.3f}, {last.high:+.3f}] | 0.840 [0.740, 0.940] | 120 | 60 |" in summary


def compared(*gaps, grid=None):
    """An analysis of `gaps`: (algorithm, difference), one per grid point in order. `grid`: over the grid."""
    points: dict[str, int] = {}
    differences = []
    for algorithm, gap in gaps:
        points[algorithm] = points.get(algorithm, 0) + 1
        setting = {"epsilon": points[algorithm]} if grid else {}
        differences.append(
            PointDifference(setting, algorithm, gap, None, None, gap, None, None, None, gap, "a verdict")
        )
    overall = [GridDifference(name, gap, {}, {}, None, ["a verdict"]) for name, gap in (grid or {}).items()]
    filler = (*[None] * 3, {}, *[None] * 3, 0, *[None] * 7, 0, {}, *[None] * 7)
    summaries = [PointSummary({}, "grpo", 5, 0, interval(0.5, 0.1, 5), *filler[1:])]
    summaries += [PointSummary(d.setting, d.algorithm, 5, 0, interval(0.5, 0.1, 5), *filler[1:]) for d in differences]
    return Analysis("grpo", [], summaries, differences, overall, {})


def test_the_verdict_of_one_algorithm():
    assert answer(compared(("gbpo", interval(0.2, 0.125, 5))), "mean@8") == [
        "gbpo is better than grpo: its final mean@8 is 0.200 higher (95 % interval of the difference: 0.075 to 0.325, "
        "5 seeds)."
    ]
    assert answer(compared(("gbpo", interval(-0.2, 0.125, 5))), "mean@8") == [
        "gbpo is worse than grpo: its final mean@8 is 0.200 lower (95 % interval of the difference: −0.325 to −0.075, "
        "5 seeds)."
    ]
    assert answer(compared(("gbpo", interval(0.1, 0.125, 2))), "mean@8") == [
        "It is undecided whether gbpo is better or worse than grpo: its final mean@8 is 0.100 higher, which may be due "
        "to chance (95 % interval of the difference: −0.025 to 0.225, 2 seeds)."
    ]
    assert answer(compared(("gbpo", Interval(0.0, 0.0, 0.0, 3))), "mean@8") == [
        "gbpo and grpo are equal on every seed: its final mean@8 is the same (3 seeds)."
    ]
    assert answer(compared(("gbpo", interval(0.1, 0.125, 1))), "mean@8") == [
        "gbpo compared with grpo: its final mean@8 is 0.100 higher (one seed)."
    ]
    assert answer(compared(("gbpo", interval(0.0, 0.125, 1))), "mean@8") == [
        "gbpo compared with grpo: its final mean@8 is the same (one seed)."
    ]


def test_the_verdict_names_the_grid_point_if_there_are_differences_at_one_only():
    analysis = compared(("gbpo", interval(0.2, 0.125, 5)), grid={"gbpo": None})
    assert answer(analysis, "mean@8")[0].startswith(
        "gbpo is better than grpo: its final mean@8 at epsilon=1 is 0.200 higher (95 % interval"
    )


def test_the_verdict_over_a_grid():
    gaps = [interval(centre, 0.1, 5) for centre in (0.3, 0.2, 0.05, -0.15)]
    analysis = compared(*(("gbpo", gap) for gap in gaps), grid={"gbpo": interval(0.1, 0.05, 4)})
    assert answer(analysis, "mean@8") == [
        "gbpo is better than grpo: its final mean@8, averaged over the 4 grid points, is 0.100 higher (95 % interval "
        "of the difference: 0.050 to 0.150, 4 seeds)."
    ]
    assert details(analysis, "mean@8")[1:] == [
        "gbpo at the 4 single grid points: better at 2 (0.200 to 0.300 higher), worse at 1 (0.150 lower), "
        "undecided at 1."
    ]
    unfinished = compared(*(("gbpo", gap) for gap in gaps[2:]), grid={"gbpo": None})
    assert answer(unfinished, "mean@8") == [
        "gbpo compared with grpo on the final mean@8: better at none, worse at 1 (0.150 lower), undecided at 1."
    ]


def test_the_verdict_of_many_algorithms_puts_them_into_groups():
    gaps = {"a": 0.2, "b": -0.2, "c": -0.3, "d": 0.01}
    found = answer(compared(*((name, interval(gap, 0.1, 5)) for name, gap in gaps.items())), "mean@8")
    assert found == [
        "Of 4 algorithms compared with grpo on the final mean@8, 1 is better, 2 are worse, 1 is undecided (5 seeds).",
        "Better: a.",
        "Worse: b, c.",
        "Undecided: d.",
    ]


def test_few_seeds_give_a_warning():
    assert warning(compared(("gbpo", interval(0.2, 0.1, 1)))).startswith("With one seed there is no confidence")
    assert warning(compared(("gbpo", interval(0.2, 0.1, 2)))).startswith("Only 2 seeds ran, which proves little.")
    assert warning(compared(("gbpo", interval(0.2, 0.1, 3)))) is None


def test_the_terminal_shows_the_verdict_and_a_table():
    analysis = compared(("gbpo", interval(0.2, 0.125, 2)), ("long", interval(0.1, 0.2, 2)))
    assert console(analysis, "mean@8") == [
        *answer(analysis, "mean@8"),
        warning(analysis),
        "",
        "Difference of the final mean@8 to grpo:",
        "gbpo  +0.200  [+0.075, +0.325]  better",
        "long  +0.100  [−0.100, +0.300]  undecided",
        "",
    ]


def test_the_page_begins_with_the_verdict_the_warning_and_the_table(tmp_path):
    results, analysis = made_up(seeds=2, grid={"epsilon": [0.2, 0.5]})
    html, summary = written(tmp_path, results, analysis)
    for text in (html, summary.replace("\\", "")):
        places = [
            text.index(part)
            for part in ("averaged over the 2 grid points", "Only 2 seeds ran", "Difference of the final")
        ]
        assert places == sorted(places)
        assert places[-1] < text.index("Highest final mean@8")
    assert summary.endswith("report.html has the details.\n")


def test_only_significant_differences_are_coloured(full):
    _, _, analysis, html, summary = full
    table = overview(analysis)
    assert (table.by_algorithm, len(table.rows), table.columns) == (False, 6, ["gbpo", LONG])
    body = html.split('<table id="overview"')[1].split("</table>")[0]
    cells = re.findall(r'<td data-head="[^"]*" class="(\w+)">([−+.\d]+)', body)
    wanted = [cell for row in table.cells for cell in row]
    assert len(cells) == len(wanted) == 12
    for (kind, value), (difference, expected) in zip(cells, wanted, strict=True):
        gap = difference.last
        assert kind == expected == ("undecided" if gap.low <= 0 <= gap.high else "better")
        assert value == signed(gap.estimate)
        assert (f"**{value}** [" in summary) == (kind == "better")
    assert {kind for kind, _ in cells} == {"better", "undecided"}
    rules = html.split("<style>")[1].split("</style>")[0]
    assert ".better {" in rules and ".worse {" in rules
    assert ".undecided" not in rules


def test_the_longer_side_of_the_overview_gives_the_rows():
    _, analysis = made_up(grid={})
    table = overview(analysis)
    assert (table.by_algorithm, table.rows, table.columns) == (True, ["gbpo", LONG], [""])


def test_failed_runs_are_reported_with_their_last_lines(full):
    _, _, _, html, summary = full
    text = " ".join(Page(html).texts)
    assert "2 of 90 runs did not finish" in text
    assert "2 of 90 runs did not finish" in summary
    assert "exit status 1: the reward <failed> on all completions" in text
    assert "\\x1b[31mValueError\\x1b[0m: <b>no</b> completion" in text


def test_signs_are_listed_in_order_where_runs_collapsed(tmp_path):
    results, analysis = made_up(grid={"epsilon": [0.2, 0.5], "num_iterations": [16]})
    unharmed = next(cell.folder for cell in results.cells if cell.setting["epsilon"] == 0.2)
    analysis.signs[unharmed] = [Sign(10, "entropy", "of a successful run")]
    text = " ".join(Page(written(tmp_path, results, analysis)[0]).texts)
    assert "6 runs with signs of trouble, in order of appearance" in text  # 4 of grpo, 1 of each gbpo
    assert text.index("entropy at step 180") < text.index("reward at step 220")
    assert "of a successful run" not in text


def test_hostile_texts_are_shown_but_never_run(full, tmp_path):
    folder, _, _, html, summary = full
    page = Page(html)
    assert not {"img", "textarea", "iframe"} & {tag for tag, _ in page.elements}
    assert [attributes for tag, attributes in page.elements if tag == "script"] == [
        {"type": "application/json", "id": "data"},
        {},
    ]
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert not [
        character for character in html if ord(character) in {0, 0x1B, 0x202E} or 0xD800 <= ord(character) < 0xE000
    ]
    for shown in (
        HOSTILE[0],
        HOSTILE[1],
        "\\x1b[31mred",
        "\\x00 \\u202egnp.exe\\u202c \\ud800",
        "{{ 7 * 7 }}",
        "(empty)",
    ):
        assert any(shown in text for text in page.texts), shown
    assert "and 98,500 more characters" in html
    assert "x" * 1501 not in html
    assert "<script" not in summary.replace("\\<script", "")
    folder_names = {path.name for path in folder.iterdir()}
    assert folder_names == {"report.html", "summary.md", "figures"}


def test_the_page_loads_nothing(full):
    *_, html, _ = full
    page = Page(html)
    for tag, attributes in page.elements:
        assert not {"src", "srcset", "action", "data", "poster", "background"} & set(attributes), tag
        assert attributes.get("href", "#").startswith("#")
    assert "link" not in {tag for tag, _ in page.elements}
    style = html.split("<style>")[1].split("</style>")[0]
    script = html.rsplit("<script>")[1]
    assert not re.search(r"@import|url\(|@font-face", style)
    assert not re.search(r"fetch|XMLHttpRequest|import|WebSocket|innerHTML|eval\(", script)
    policy = next(a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; ")


def test_figures_of_an_earlier_grid_are_removed(tmp_path):
    results, analysis = made_up(grid={"epsilon": [0.2]}, seeds=1)
    written(tmp_path, results, analysis)
    (tmp_path / "figures" / "mine.png").write_bytes(b"a picture of the user")
    results, analysis = made_up(grid={"epsilon": [0.1, 0.2]}, seeds=1)
    written(tmp_path, results, analysis)
    assert sorted(path.name for path in (tmp_path / "figures").glob("[mv]*")) == [
        "mine.png",
        "validation-1-epsilon=0.1.png",
        "validation-2-epsilon=0.2.png",
    ]


def test_figures_are_not_empty(full):
    figures = {path.name for path in (full[0] / "figures").iterdir()}
    assert len([name for name in figures if name.startswith("validation-")]) == 6
    assert {"differences.png", "heatmap-final.png", "heatmap-collapsed.png", "heatmap-difference.png"} <= figures
    for name in figures:
        pixels = imread(full[0] / "figures" / name)[:, :, :3]  # (height, width, 3) in [0, 1]
        coloured = (pixels.max(-1) - pixels.min(-1) > 0.1).mean()
        assert coloured > (0.1 if "heatmap" in name else 0.001), f"{name} is empty"


def test_a_curve_has_the_mean_lowest_and_highest_seed():
    def cell(steps, values):
        return Cell("grpo", {}, 0, "done", "", "", series={"step": steps, "m": values})

    both = curve([cell([1, 2, 3, 4], [1.0, None, 3.0, 5.0]), cell([1, 3, 4], [3.0, 4.0, math.nan])], "m")
    assert (both.steps, both.mean, both.low, both.high) == ([1, 3], [2.0, 3.5], [1.0, 3.0], [3.0, 4.0])
    alone = curve([cell([1, 2], [1.0, 2.0])], "m")
    assert (alone.low, alone.high) == (None, None)
    assert curve([cell([1], [None])], "m") is None
    long = curve([cell(list(range(1, 1001)), [0.0] * 1000)], "m")
    assert len(long.steps) == 250  # every 4th of 1000
    assert long.steps[-1] == 1000


def test_heat_maps_use_the_two_fields_with_the_most_values():
    results, analysis = made_up(**SHAPES["three fields"] | {"grid": {"b": [0, 1], "e": [1, 2, 3], "n": [1, 2]}})
    analysis.differences[0] = dataclasses.replace(analysis.differences[0], last=interval(0.2, 0.1, 5))
    final, collapsed, difference = heat_maps(results, analysis, "mean@8")
    assert [drawn.algorithm for drawn in difference.maps] == ["gbpo", "gbpo", LONG, LONG]
    assert [drawn.facet for drawn in final.maps[:2]] == ["n=1", "n=2"]
    first = final.maps[1]
    assert (first.column_field, first.columns, first.row_field, first.rows) == ("e", [1, 2, 3], "b", [0, 1])
    wanted = next(r for r in analysis.summaries if r.setting == {"b": 1, "e": 3, "n": 2} and r.algorithm == "grpo")
    assert first.spots[1][2].summary is wanted
    assert first.spots[1][2].value == wanted.last.estimate
    assert all(spot.coloured for drawn in final.maps for row in drawn.spots for spot in row)
    gaps = {(label(d.setting), d.algorithm): d.last for d in analysis.differences}
    spots = [(drawn.algorithm, spot) for drawn in difference.maps for row in drawn.spots for spot in row]
    assert {spot.coloured for _, spot in spots} == {True, False}
    assert all(spot.coloured == gaps[spot.point, algorithm].excludes_zero for algorithm, spot in spots)
    assert difference.low == -difference.high
    assert difference.strength(0.0) == 0.0
    assert difference.strength(difference.low) == difference.strength(difference.high) == 1.0
    assert (collapsed.low, collapsed.high) == (0.0, 1.0)


def test_samples_come_from_the_first_seed_and_the_largest_difference():
    results, analysis = made_up(seeds=2)
    widest = max(analysis.differences, key=lambda versus: abs(versus.last.estimate)).setting
    for cell in results.cells:
        if cell.last:
            cell.last.scores = [0.5] * 20
            if cell.algorithm == LONG:
                cell.last.scores[3], cell.last.scores[7] = 0.25, 1.0
    samples = differing_samples(results, analysis)
    assert (samples["point"], samples["seed"], samples["differing"]) == (label(widest), 0, 2)
    assert [question["prompt"] for question in samples["questions"]] == [("What is 7 + 1?", 0), ("What is 3 + 1?", 0)]
    assert [score for _, score, _ in samples["questions"][0]["answers"]] == [0.5, 0.5, 1.0]


def test_what_a_comparison_does_not_have_is_not_on_the_page(tmp_path):
    results, analysis = made_up(seeds=2)
    results.evaluation |= {"seed": 0, "image_column": None, "environment_kwargs": {}}
    with_references, _ = written(tmp_path, results, analysis)
    assert "<span>Reference</span>" in with_references and "<dt>seed</dt><dd>0</dd>" in with_references
    assert "image_column" not in with_references and "environment_kwargs" not in with_references
    for question in results.questions:
        question["gold"] = ""
    without, _ = written(tmp_path, results, analysis)
    assert "<span>Reference</span>" not in without and "What is 3 + 1?" in without


def test_samples_are_left_out_of_a_shortened_file(tmp_path):
    results, analysis = made_up(seeds=2)
    results.questions = []
    for cell in results.cells:
        if cell.last:
            cell.last.completions = None
    html, _ = written(tmp_path, results, analysis)
    assert "results.json contains no completions of two algorithms to compare" in html


@pytest.mark.parametrize(
    "value, written",
    [(None, "–"), (7.0, "7"), (9_999, "9,999"), (12_345, "12.3 k"), (1.2e6, "1.2 M"), (3.4e10, "34 G")],
)
def test_amounts(value, written):
    assert amount(value) == written


@pytest.mark.parametrize(
    "value, written", [(None, "–"), (math.nan, "–"), (119, "119 s"), (600, "10 min"), (9000, "2.5 h")]
)
def test_durations(value, written):
    assert duration(value) == written


def test_missing_numbers_are_a_dash():
    assert [number(value) for value in (None, math.nan, math.inf, 0.12345)] == ["–", "–", "–", "0.123"]
    assert [signed(value) for value in (None, -0.5, 0.25)] == ["–", "−0.500", "+0.250"]


@pytest.mark.slow
def test_a_report_of_140_cells_is_small_and_quick(tmp_path):
    grid = {"epsilon": [0.2, 0.3, 0.5], "num_iterations": [1, 4, 16]}
    results, analysis = made_up([*ALGORITHMS, "gbpo:overshoot_slope=0.2"], grid, seeds=4, steps=600)
    assert len(results.cells) == 144
    start = time.process_time()
    written(tmp_path, results, analysis)
    assert time.process_time() - start < 30
    assert (tmp_path / "report.html").stat().st_size < 5e6


def test_command_makes_the_report_again(tmp_path, monkeypatch, capsys):
    results, analysis = made_up(grid={}, seeds=1)
    results.save(tmp_path)
    asked = []
    monkeypatch.setattr(command, "analyse", lambda given: asked.append(given) or analysis)
    command.main([str(tmp_path)])
    assert asked == [results]
    printed = capsys.readouterr().out
    assert printed.endswith(f"report: {tmp_path / 'report.html'}\n")
    assert printed.startswith(answer(analysis, "mean@8")[0])
    with pytest.raises(SystemExit) as stop:
        command.main([str(tmp_path / "figures")])
    assert stop.value.code == 2
    assert "contains no results.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("figures", b"a file", ["cannot be written into", "File exists", "gbpo report"]),
        ("results.json", b"\xff", ["results.json' cannot be read", "finished runs are kept"]),
    ],
)
def test_a_report_that_cannot_be_made_is_one_line(name, content, words, tmp_path, capsys):
    results, _ = made_up(grid={}, seeds=1)
    results.save(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SystemExit) as stop:
        command.main([str(tmp_path)])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1 and all(word in error for word in words), error


@pytest.mark.parametrize(
    "name, width, scheme",
    [("light", 1280, "light"), ("dark", 1280, "dark"), ("phone", 390, "dark"), ("small phone", 360, "light")],
)
def test_page_in_chromium(full, browser, shots, name, width, scheme):
    browser.open(full[0] / "report.html", width=width, scheme=scheme)
    browser.screenshot(shots / f"report-{name}.png")
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    cut = "[...document.querySelectorAll('.wide')].filter(e => e.scrollWidth > e.clientWidth).length"
    assert browser.evaluate(cut) == 0
    assert browser.evaluate("document.querySelectorAll('#charts svg').length") == 8
    dark = browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    assert dark == (scheme == "dark")
    assert browser.evaluate("document.title").startswith("tiny_math: ")
    assert browser.complaints() == []


def test_tooltips_in_chromium(full, browser, shots):
    _, results, analysis, *_ = full
    browser.open(full[0] / "report.html")
    tip = "document.getElementById('tip').hidden ? null : document.getElementById('tip').innerText"
    assert browser.evaluate(tip) is None
    browser.hover("#charts svg")
    browser.until("!document.getElementById('tip').hidden")
    browser.screenshot(shots / "report-tooltip.png", whole=False)
    step = int(re.match(r"Validation reward, step (\d+)\ngrpo\n", browser.evaluate(tip))[1])
    line = curve(results.done("grpo", results.settings()[0]), "eval_reward")
    assert f"{line.mean[line.steps.index(step)]:.3g}" in browser.evaluate(tip)
    browser.hover("h1")
    browser.until("document.getElementById('tip').hidden")
    browser.hover("[data-tip]")
    browser.until("!document.getElementById('tip').hidden")
    row = analysis.summaries[0]
    assert f"Final mean@8: {row.last.estimate:.3f}\n5 seeds, 0 collapsed" in browser.evaluate(tip)
    assert browser.complaints() == []


def test_keyboard_and_selector_in_chromium(full, browser):
    browser.open(full[0] / "report.html")
    tip = "document.getElementById('tip').innerText"
    browser.evaluate("document.querySelector('#charts svg').focus({focusVisible: true})")
    browser.press("ArrowLeft")
    assert "Validation reward, step 550" in browser.evaluate(tip)
    browser.press("Escape")
    assert browser.evaluate("document.getElementById('tip').hidden")
    browser.evaluate("document.querySelector('[data-tip]').focus()")
    browser.press("ArrowRight")
    assert "epsilon=0.2, num_iterations=4" in browser.evaluate(tip)
    before = browser.evaluate(
        "document.getElementById('charts').textContent + document.querySelector('path.line').outerHTML"
    )
    browser.evaluate(
        "(() => { const s = document.getElementById('point'); s.value = '5'; s.dispatchEvent(new Event('change')) })()"
    )
    after = browser.evaluate(
        "document.getElementById('charts').textContent + document.querySelector('path.line').outerHTML"
    )
    assert before != after
    assert browser.complaints() == []


def test_the_browser_test_would_see_a_request(browser, tmp_path):
    page = tmp_path / "page.html"
    page.write_text("<img src='http://127.0.0.1:9/x.png'><script>console.log('hello'); nowhere()</script>")
    browser.open(page)
    complaints = str(browser.complaints())
    for seen in ("http://127.0.0.1:9/x.png", "hello", "nowhere is not defined"):
        assert seen in complaints
