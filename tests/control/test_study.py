"""`python -m evals.control`: the comparison of BPO and PPO."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evals import control
from gbpo.control import train

ROOT = Path(__file__).parents[2]
SMALL = {"n_steps": 64, "n_epochs": 1, "policy_kwargs": {"net_arch": [8]}}


def results(algorithm, returns, speed):
    """The contents of `results.json` for seeds that end with these returns. The last seed is not finished."""
    seeds = [
        {
            "seed": seed,
            "finished": seed < len(returns) - 1,
            "eval_return_mean": sum(last) / 2,
            "sampled_return_mean": last[0],
            "steps_per_second": speed,
            "curve": [
                {"steps": 0, "eval_returns": [0.0, 1.0], "train_return_mean": None},
                {"steps": 100, "eval_returns": last, "train_return_mean": last[0]},
            ],
        }
        for seed, last in enumerate(returns)
    ]
    plan = {"env": "Hopper-v5", "steps": 100, "algorithm": algorithm}
    return {"plan": plan, "git_revision": "0", "versions": {}, "seeds": seeds}


def test_only_seeds_finished_by_both_algorithms_count():
    bpo = results("bpo", [[10.0, 20.0], [30.0, 40.0], [50.0, 60.0], [900.0, 900.0]], 190.0)
    ppo = results("ppo", [[1.0, 2.0], [3.0, 4.0], [900.0, 900.0]], 200.0)
    comparison = control.compare({"bpo": bpo, "ppo": ppo})
    assert comparison["seeds"] == [0, 1]
    assert comparison["bpo"]["eval_return_means"] == [15.0, 35.0]
    assert comparison["bpo"]["iqm"]["estimate"] == 25.0  # of 10, 20, 30, 40: the mean of the middle two
    assert comparison["ppo"]["iqm"]["estimate"] == 2.5
    assert comparison["difference"]["estimate"] == 22.5
    assert comparison["difference"]["low"] < 22.5 < comparison["difference"]["high"]
    assert comparison["probability_of_improvement"]["estimate"] == 1.0
    assert [point["steps"] for point in comparison["bpo"]["curve"]] == [0, 100]
    assert control.describe(comparison).startswith("Hopper-v5, 100 steps, 2 seeds: bpo 25.0 [")
    # the means of 10 and 30, and of 1 and 3
    assert control.describe(comparison).endswith(", with sampled actions 20.0 and 2.0, speed 0.95")
    del bpo["seeds"][0]["sampled_return_mean"]  # as in files of earlier versions
    assert "sampled" not in control.describe(control.compare({"bpo": bpo, "ppo": ppo}))
    [axis] = control.draw(comparison).axes
    assert [line.get_label() for line in axis.lines] == ["PPO", "BPO"]
    assert comparison["bpo"]["curve"][1]["high"] > 100  # of two seeds; the curves go from 0.5 to 25
    assert axis.get_ylim() == (-24.0, 49.5)


def test_no_comparison_without_a_seed_finished_by_both():
    runs = {name: results(name, [[1.0, 2.0]], 1.0) for name in ("bpo", "ppo")}
    assert control.describe(control.compare(runs)).endswith("no seed was finished by both algorithms")


def test_the_command_trains_both_algorithms_and_resumes(tmp_path, capsys):
    recipe = tmp_path / "small.yaml"
    fields = {"env": "CartPole-v1", "steps": 128, "eval_episodes": 2, "evaluations": 2, "bpo": SMALL, "ppo": SMALL}
    recipe.write_text(json.dumps(fields))
    command = [str(recipe), "--seeds", "0", "--workers", "2", "--runs", str(tmp_path / "runs")]
    command += ["--output", str(tmp_path / "study")]
    with pytest.raises(SystemExit) as stop:
        control.main(command)
    assert stop.value.code == 0
    assert "1 seed: bpo" in capsys.readouterr().out
    assert json.loads((tmp_path / "study" / "small.json").read_text())["ppo"]["plan"]["settings"] == SMALL
    assert (tmp_path / "study" / "small.png").is_file()
    log = tmp_path / "runs" / "small-bpo-seed-0.log"
    with pytest.raises(SystemExit):
        control.main(command)
    assert "finished before" in log.read_text()


@pytest.fixture
def study(tmp_path, monkeypatch):
    """`study(*arguments, **keys of the recipe)` runs a study of 64 steps in this process → exit status."""
    monkeypatch.setattr(control, "_train", lambda job: train.main(job) or 0)

    def run(*arguments, **keys):
        recipe = tmp_path / "small.yaml"
        fields = {"env": "CartPole-v1", "steps": 64, "eval_episodes": 2, "evaluations": 1, "bpo": SMALL, "ppo": SMALL}
        recipe.write_text(json.dumps({**fields, **keys}))
        with pytest.raises(SystemExit) as stop:
            control.main([str(recipe), "--runs", str(tmp_path / "runs"), *map(str, arguments)])
        return stop.value.code

    return run


def test_a_study_continues_elsewhere_from_the_results_alone(study, tmp_path):
    """All but `results.json` of both algorithms is lost. Seed 0 keeps its results, and only seed 1 is trained."""
    assert study("--seeds", 0) == 0
    before = {}
    for algorithm in ("bpo", "ppo"):
        runs = tmp_path / "runs" / f"small-{algorithm}"
        before[algorithm] = json.loads((runs / "results.json").read_text())["seeds"][0]
        kept = (runs / "results.json").read_text()
        shutil.rmtree(runs)
        runs.mkdir()
        (runs / "results.json").write_text(kept)
    assert study("--seeds", 0, 1) == 0
    for algorithm, first in before.items():
        runs = tmp_path / "runs" / f"small-{algorithm}"
        seeds = json.loads((runs / "results.json").read_text())["seeds"]
        assert seeds[0] == first and [(run["seed"], run["finished"]) for run in seeds] == [(0, True), (1, True)]
        assert not list((runs / "seed-0").glob("checkpoint-*")) and list((runs / "seed-1").glob("checkpoint-64"))
    assert json.loads((tmp_path / "runs" / "small.json").read_text())["seeds"] == [0, 1]  # not a published study


def test_studies_of_different_lengths_are_side_by_side_and_no_result_is_overwritten(study, tmp_path, capsys):
    output = ["--output", tmp_path / "study"]
    assert study("--seeds", 0, *output) == study("--seeds", 0, "--steps", 128, *output) == 0
    found = {path.name: json.loads(path.read_text()) for path in (tmp_path / "study").glob("*.json")}
    assert {name: study["steps"] for name, study in found.items()} == {"small.json": 64, "small-128.json": 128}
    assert (tmp_path / "study" / "small-128.png").is_file()
    capsys.readouterr()
    assert study("--seeds", 1, *output) == 2
    assert "small.json holds seeds [0], which would be lost. Add them to --seeds" in capsys.readouterr().err
    assert study("--seeds", 0, *output, ppo={**SMALL, "gamma": 0.9}) == 2  # the runs
    assert "holds a run with settings=" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "runs")
    assert study("--seeds", 0, *output, ppo={**SMALL, "gamma": 0.9}) == 2  # the results
    assert "small.json holds a study with other settings, which would be lost" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    assert {path.name: json.loads(path.read_text()) for path in (tmp_path / "study").glob("*.json")} == found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the runs end with the study on Linux only")
def test_a_killed_study_resumes_its_runs_at_their_last_checkpoints(tmp_path):
    recipe = tmp_path / "long.yaml"
    fields = {"env": "CartPole-v1", "steps": 3200, "eval_episodes": 1, "evaluations": 10, "bpo": SMALL, "ppo": SMALL}
    recipe.write_text(json.dumps(fields))
    command = [sys.executable, "-m", "evals.control", str(recipe), "--seeds", "0", "--workers", "2"]
    command += ["--runs", str(tmp_path / "runs"), "--output", str(tmp_path / "study")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}

    def checkpoints(steps):
        return list((tmp_path / "runs").glob(f"long-*/seed-0/checkpoint-{steps}"))

    study = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while len({path.parent for path in checkpoints("[1-9]*")}) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    study.kill()
    study.wait()
    assert not checkpoints(3200)
    subprocess.run(command, env=environment, check=True, capture_output=True)  # fails if a seed is still locked
    assert json.loads((tmp_path / "study" / "long.json").read_text())["seeds"] == [0]
    for algorithm in ("bpo", "ppo"):
        logs = sorted((tmp_path / "runs" / f"long-{algorithm}" / "seed-0").glob("log-from-*"))
        assert len(logs) == 2 and logs[1].name != "log-from-0"


def test_a_missing_recipe_prints_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        control.main([str(tmp_path / "none.yaml")])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and "none.yaml not found" in error and error.count("\n") == 1


def test_seeds_with_commas_are_refused_in_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        control.main([str(tmp_path / "none.yaml"), "--seeds", "0,1"])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and "by spaces: --seeds 0 1." in error and error.count("\n") == 1


def test_a_run_that_cannot_start_is_reported_in_one_line(tmp_path, capsys):
    recipe = tmp_path / "gone.yaml"
    recipe.write_text(json.dumps({"env": "NoSuchTask-v7", "steps": 128}))
    with pytest.raises(SystemExit) as stop:
        control.main([str(recipe), "--seeds", "0", f"--runs={tmp_path / 'runs'}", f"--output={tmp_path / 'study'}"])
    lines = capsys.readouterr().err.splitlines()
    assert stop.value.code == 1 and len(lines) == 2  # one for BPO, one for PPO
    assert all(line.startswith("failed: ") and "NoSuchTask" in line.rpartition("error: ")[2] for line in lines)
    assert not list((tmp_path / "study").iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", 0], "workers=0 would train nothing"),
        (["--steps", 0], "steps=0 would train"),
        (["--output", "small.yaml"], "small.yaml"),
    ],
)
def test_nonsense_is_refused_in_one_line(arguments, message, study, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert study("--seeds", 0, *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("evals.control: error: ") and message in error and error.count("\n") == 1
    assert not list((tmp_path / "runs").glob("*"))


@pytest.mark.parametrize("content", ["{", "[1]", '{"seeds": [0]}'])
def test_another_file_of_the_name_of_the_study_is_not_overwritten(content, study, tmp_path, capsys):
    file = tmp_path / "study" / "small.json"
    file.parent.mkdir()
    file.write_text(content)
    assert study("--seeds", 0, "--output", file.parent) == 2
    assert f"{file} is not a study" in capsys.readouterr().err and file.read_text() == content


def test_recipes_of_one_name_would_share_a_folder(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        control.main([str(tmp_path / "a" / "hopper.yaml"), str(tmp_path / "b" / "hopper.yaml")])
    assert stop.value.code == 2 and "Two recipes are named 'hopper'" in capsys.readouterr().err


def test_a_repeated_seed_is_trained_once(study, monkeypatch):
    jobs = []
    monkeypatch.setattr(control, "_train", lambda job: jobs.append(job) or 0)
    assert study("--seeds", 0, 0) == 0
    assert len(jobs) == 2  # BPO and PPO
