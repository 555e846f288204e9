"""The page of a run: its texts, its safety, and its looks in a browser."""

import json
import re
from html.parser import HTMLParser

import pytest

from browser import HOSTILE
from gbpo.run.report.command import main
from gbpo.run.report.page import write
from gbpo.run.report.samples import LONGEST, last_samples
from gbpo.run.report.story import End
from gbpo.run.rollouts import files


class Texts(HTMLParser):
    """The visible texts of a page."""

    def __init__(self, html):
        super().__init__()
        self.found, self._hidden = [], 0
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self._hidden += tag in ("script", "style")

    def handle_endtag(self, tag):
        self._hidden -= tag in ("script", "style")

    def handle_data(self, data):
        if not self._hidden:
            self.found.append(data)


def text_of(page):
    return " ".join(" ".join(Texts(page.read_text().replace("<wbr>", "")).found).split())


def panels_of(page):
    """The panels of a page by their titles."""
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text())[1]
    return {panel["title"]: panel for panel in json.loads(data)["panels"]}


def completion(text, reward, **more):
    """A completion as a run stores it."""
    return {"completion": text, "rewards": {"right": reward}, "reward": reward, "statuses": {"status": "ok"}} | more


def generation(*groups, number=0, steps=(1, 2)):
    return {
        "generation": number,
        "steps": list(steps),
        "groups": [{"row": {"prompt": prompt}, "completions": completions} for prompt, completions in groups],
    }


def test_a_finished_run(make_run, logs):
    run = make_run(logs(40), ["2026-11-01 11:00:00 ended at step 40: finished; last checkpoint: none"])
    text = text_of(write(run))
    assert "The run finished at step 40." in text
    # a fifth of 40 logs is 8: the means of 0.01 … 0.08 and of 0.33 … 0.40
    assert "reward 0.045 ± 0.024 in the first 8 of 40 logs, 0.365 ± 0.024 in the last 8" in text
    assert "tokens 20 k, 200 per second (median of the logs)" in text  # 1000 tokens in 3 + 1 + 1 s
    assert "slowest phase generate, 60% of the time" in text  # 3 of 5 s
    assert f"To test the model: gbpo evaluate {run}" in text and "resume" not in text
    assert "learning_rate 0.001" in text and "a processor, 2 cores" in text and "vllm" not in text
    assert "2026-11-01 10:00:00: started gbpo train mine.yaml --seed 1" in text


def test_the_curves(make_run, logs):
    rows = logs(4) + [{"step": 4, "eval_reward": 0.5, "eval_reward_std": 0.1}]
    panels = panels_of(write(make_run(rows)))
    assert [*panels] == ["reward", "length", "ratio", "entropy", "gradient norm", "time by phase", "speed"]
    training, evaluation = panels["reward"]["lines"]
    assert training["steps"] == [1, 2, 3, 4] and training["mean"] == [0.01, 0.02, 0.03, 0.04]
    assert training["low"] == [-0.24, -0.23, -0.22, -0.21] and training["high"] == [0.26, 0.27, 0.28, 0.29]
    assert evaluation["steps"] == [4] and evaluation["mean"] == [0.5] and evaluation["low"] is None
    times = {line["name"]: line["mean"] for line in panels["time by phase"]["lines"]}
    assert times == {"generate": [1.5, 1.5], "loss": [1.0, 1.0]}  # means of the two steps of a generation
    assert panels["time by phase"]["stacked"]
    assert panels["speed"]["lines"][0]["mean"] == [200.0, 200.0]


def test_long_runs_have_few_points_with_the_first_and_the_last(make_run, logs):
    (line,) = panels_of(write(make_run(logs(1000))))["entropy"]["lines"]
    assert len(line["steps"]) == 300 and (line["steps"][0], line["steps"][-1]) == (1, 1000)


def test_numbers_that_were_not_finite_are_left_out(make_run, logs):
    rows = logs(3)
    rows[1] |= {"entropy": None, "grad_norm": None, "reward": None, "num_tokens": None, "time/loss": None}
    panels = panels_of(write(make_run(rows)))
    assert panels["entropy"]["lines"][0]["steps"] == [1, 3]


def test_a_run_of_grpo_with_kl_and_two_rewards(make_run, logs):
    more = {"kl": 0.5, "clip_ratio/region_mean": 0.25, "rewards/right/mean": 0.5, "rewards/short/mean": 1.0}
    rows = [{k: v for k, v in row.items() if not k.startswith("gbpo/")} for row in logs(4, **more)]
    page = write(make_run(rows, run={"algorithm": "grpo"}))
    panels = panels_of(page)
    assert "Run of GRPO" in text_of(page)
    assert panels["KL divergence"]["lines"][0]["mean"] == [0.5] * 4
    assert [line["name"] for line in panels["ratio"]["lines"]] == ["clipped by GRPO"]
    assert [line["name"] for line in panels["rewards by name"]["lines"]] == ["right", "short"]


def test_a_run_without_logs(make_run):
    text = text_of(write(make_run()))
    assert "The run has logged nothing yet." in text
    assert "Nothing says how the run ended. Its last log is of step 0 of 40." in text
    assert "has no completions, so there is nothing to show. Run the recipe with log_completions: true" in text


@pytest.mark.parametrize(("checkpoint", "where"), [("checkpoint-2", "from checkpoint-2"), ("", "from step 0")])
def test_a_run_that_ends_early(make_run, logs, checkpoint, where):
    run = make_run(logs(3))
    (run / (checkpoint or "model")).mkdir()
    text = text_of(write(run, End(3, "the entropy fell below 5 %")))
    assert "The run ended at step 3: the entropy fell below 5 %" in text
    assert f"To go on {where}" in text
    assert "gbpo train mine.yaml --seed 1 --output_dir runs/mine --resume_from_checkpoint auto" in text
    assert "in the folder where the run was started" in text
    assert "ended at step 3" in text.split("History")[-1]
    assert "gbpo evaluate" not in text


def test_the_commands_have_paths_from_the_working_folder(make_run, logs, monkeypatch, tmp_path):
    """The page is often sent to others, who need not know the home folder of its author."""
    run = make_run(logs(3), ["2026-11-01 11:00:00 ended at step 3: finished; last checkpoint: none"])
    monkeypatch.chdir(tmp_path)
    assert "gbpo evaluate mine" in text_of(write(run))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "gbpo evaluate ~/mine" in (text := text_of(write(run)))
    assert str(tmp_path) not in text


def test_a_resumed_run_shows_the_settings_of_each_start(make_run, logs, resume):
    ends = ["2026-11-01 10:30:00 ended at step 3: killed; last checkpoint: mine/checkpoint-2; go on with: x"]
    run = make_run(logs(4), ends)
    training = {"max_steps": 40, "use_cpu": True, "learning_rate": 0.5}
    resume(run, 2, started="2026-11-01 10:45:00", training=training)
    text = text_of(write(run))
    assert "field start from step 2 learning_rate 0.001 0.5" in text
    history = text.split("History")[-1]
    assert history.index("started") < history.index("ended at step 3: killed") < history.index("resumed after step 2")
    assert "Nothing says how the run ended" in text
    resume(run, 2, started="2026-11-01 10:45:00")
    assert "field start from step 2 learning_rate 0.001 History" in text_of(write(run))  # equal values are shown once


def test_the_samples_are_the_best_and_the_worst_of_each_group(make_run, logs):
    run = make_run(logs(4))
    files.write(run, generation(("1+1=", [completion("old", 1.0)])))
    last = [completion("3", 0.0), completion("2", 1.0), completion("22", 0.5), completion("?", None)]
    groups = [(f"{n}+1=", last) for n in range(8)]
    files.write(run, generation(*groups, number=1, steps=(3, 4)))
    found = last_samples(run)
    assert found.steps == (3, 4) and [group.prompt[0].start for group in found.groups] == [
        "0+1=",
        "2+1=",
        "5+1=",
        "7+1=",
    ]
    best, worst = found.groups[0].samples
    assert best.messages[0].start == "2" and best.facts == {"reward": "1", "status": "ok"}
    assert worst.messages[0].start == "?" and worst.facts["reward"] == "none"
    text = text_of(write(run))
    assert "in optimiser steps 3 to 4" in text and "old" not in text.split("Samples")[-1]


def test_a_long_completion_keeps_its_start_and_its_end(make_run):
    run = make_run()
    files.write(run, generation(("?", [completion("a" * LONGEST + "b" * LONGEST, 1.0)])))
    (message,) = last_samples(run).groups[0].samples[0].messages
    assert message.start == "a" * (LONGEST // 2) and message.end == "b" * (LONGEST // 2)
    assert message.left_out == LONGEST
    assert f"… {LONGEST:,} characters …" in text_of(write(run))


def test_conversations_have_roles_and_calls(make_run):
    run = make_run()
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    turns = [
        {"role": "assistant", "content": "I add.", "tool_calls": [call]},
        {"role": "tool", "name": "add", "content": [{"type": "text", "text": "2"}, {"type": "image"}]},
    ]
    files.write(run, generation(([{"role": "user", "content": "1+1"}], [completion(turns, 1.0)])))
    (group,) = last_samples(run).groups
    assert [(message.role, message.start) for message in group.prompt] == [("user", "1+1")]
    shown = [(message.role, message.start) for message in group.samples[0].messages]
    assert shown == [("assistant", 'I add.\nadd({"a": 1})'), ("tool", "2[image]")]


def test_a_broken_file_of_completions_is_named(make_run):
    run = make_run()
    (run / "rollouts").mkdir()
    (run / "rollouts" / "generation-00000-step-00001.jsonl.gz").write_bytes(b"broken")
    assert "cannot be read" in text_of(write(run))


def test_the_command_knows_a_run_from_other_folders(make_run, capsys, tmp_path):
    run = make_run()
    main([str(run)])
    assert capsys.readouterr().out == f"{run / 'report.html'}\n"
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path)])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.count("\n") == 1 and "gbpo report: error:" in error
    (tmp_path / "comparison.json").write_text("{}")
    with pytest.raises(SystemExit):
        main([str(tmp_path)])
    assert "No run of the comparison in" in capsys.readouterr().err
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(SystemExit):
        main([str(tmp_path)])
    assert "results.json" in capsys.readouterr().err  # the command of comparisons has read it


# --- in a browser


@pytest.fixture
def hostile_page(make_run, logs):
    """A page whose texts all try to run a script."""
    run = make_run(
        logs(8, **{f"rewards/{HOSTILE[:-2].replace('/', '')}/mean": 0.1, "rewards/b/mean": 0.2}),
        [f"2026-11-01 11:00:00 ended at step 8: {HOSTILE[:60]}; last checkpoint: none; go on with: x"],
        command=["gbpo", HOSTILE],
        run={"algorithm": HOSTILE},
    )
    texts = [
        completion(HOSTILE, 1.0, statuses={HOSTILE: HOSTILE}),
        completion([{"role": HOSTILE, "content": HOSTILE}], 0),
    ]
    files.write(run, generation((HOSTILE, texts)))
    return write(run)


def test_texts_of_the_model_do_nothing(hostile_page, browser):
    browser.open(hostile_page)
    browser.until("document.querySelectorAll('figure').length > 5")
    assert browser.evaluate("typeof window.hacked") == "undefined"
    assert browser.complaints() == []
    assert browser.evaluate("document.querySelectorAll('img, script').length") == 2  # the data and the charts
    assert HOSTILE[:40] in browser.evaluate("document.getElementById('samples').innerText")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_looks(make_run, logs, browser, width, scheme, tmp_path):
    run = make_run(logs(40, kl=0.1))
    files.write(run, generation(("1+1=", [completion("2", 1.0), completion("3", 0.0)]), steps=(39, 40)))
    browser.open(write(run), width=width, scheme=scheme)
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    left, right = browser.evaluate("[...document.querySelectorAll('.pair > div')].map(one => one.offsetTop)")
    assert (left == right) == (width == 1280)  # side by side, or one below the other
    assert (browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)") == (
        scheme == "dark"
    )
    assert browser.complaints() == []


def test_the_values_of_a_chart_can_be_read(make_run, logs, browser):
    browser.open(write(make_run(logs(40))))
    browser.hover("figure:nth-child(6) svg.chart")
    tip = browser.evaluate("document.getElementById('tip').innerText")
    assert "time by phase, step 18" in tip and re.search(r"generate\s+1.5", tip) and re.search(r"loss\s+1", tip)
