"""`python -m gbpo.control`: output files, resuming after kill -9, errors, and the shipped recipes."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from stable_baselines3 import PPO

from gbpo.control import BPO, agents, environments, evaluation, folder, train
from gbpo.control.checkpoints import Evaluation, Progress, last_checkpoint, read_progress, write_checkpoint
from gbpo.control.recipe import ALGORITHMS, Plan, parse
from gbpo.control.results import write_results
from gbpo.shared.packages import install_command

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes" / "control").glob("*.yaml"))
SMALL = {"n_steps": 64, "n_envs": 2, "n_epochs": 1, "policy_kwargs": {"net_arch": [8]}}


@pytest.fixture
def recipe(tmp_path):
    """`recipe(**keys)` → path of a recipe that trains for a second."""

    def write(**keys):
        path = tmp_path / "small.yaml"
        fields = {"env": "CartPole-v1", "steps": 512, "eval_episodes": 2, "evaluations": 4, "bpo": SMALL, "ppo": SMALL}
        path.write_text(json.dumps({**fields, **keys}))  # JSON is YAML
        return str(path)

    return write


def run(*arguments):
    train.main([str(argument) for argument in arguments])


def results(output):
    return json.loads((output / "results.json").read_text())


@pytest.mark.sweep
@pytest.mark.parametrize("algorithm", ["bpo", "ppo"])
def test_a_run_writes_results_curve_model_and_log(algorithm, recipe, tmp_path, capsys):
    output = tmp_path / "out"
    run(recipe(), "--algorithm", algorithm, "--seeds", 3, 4, "--output", output)
    found = results(output)
    assert found["plan"]["algorithm"] == algorithm and found["plan"]["settings"] == SMALL
    assert [seed["seed"] for seed in found["seeds"]] == [3, 4]
    for seed in found["seeds"]:
        assert seed["finished"] and seed["steps"] == 512 and seed["steps_per_second"] > 0
        assert [point["steps"] for point in seed["curve"]] == [0, 128, 256, 384, 512]
        last = seed["curve"][-1]["eval_returns"]
        assert len(last) == 2 and seed["eval_return_mean"] == sum(last) / 2
        assert seed["eval_return_std"] == abs(last[0] - last[1]) / 2
        sampled = seed["curve"][-1]["sampled_returns"]
        assert len(sampled) == 2 and seed["sampled_return_mean"] == sum(sampled) / 2
        seed_folder = output / f"seed-{seed['seed']}"
        assert [path.name for path in seed_folder.glob("checkpoint-*")] == ["checkpoint-512"]
        model = ALGORITHMS[algorithm].load(seed_folder / "checkpoint-512" / "model.zip", device="cpu")
        assert type(model) is {"bpo": BPO, "ppo": PPO}[algorithm] and model.num_timesteps == 512
        assert ("train/target_ratio" in (seed_folder / "log-from-0" / "progress.csv").read_text()) == (
            algorithm == "bpo"
        )
    assert (output / "curve.png").stat().st_size > 5000
    assert str(output / "results.json") in capsys.readouterr().out


def test_finished_seeds_are_not_run_again_and_more_can_be_added(recipe, tmp_path, capsys):
    output = tmp_path / "out"
    run(recipe(), "--output", output)
    before = results(output)["seeds"][0]
    run(recipe(), "--seeds", 0, 1, "--output", output)
    assert "seed 0: finished before" in capsys.readouterr().out
    after = results(output)["seeds"]
    assert after[0] == before and after[1]["finished"]


def test_a_finished_seed_without_its_checkpoint_is_not_run_again(recipe, tmp_path, capsys):
    output = tmp_path / "out"
    run(recipe(), "--output", output)
    before = results(output)
    shutil.rmtree(output / "seed-0")
    run(recipe(), "--video", "--output", output)
    assert "seed 0: finished before" in (printed := capsys.readouterr().out)
    assert f"film:    none of seed 0, because its checkpoint is not in {output}" in printed
    assert results(output) == before and (output / "curve.png").stat().st_size > 5000
    before["seeds"][0]["finished"] = False  # as after an interruption
    (output / "results.json").write_text(json.dumps(before))
    run(recipe(), "--output", output)
    assert last_checkpoint(output / "seed-0") and results(output)["seeds"][0]["finished"]


def test_a_killed_run_resumes_from_its_last_checkpoint(recipe, tmp_path):
    """The run normalises observations and rewards, so the checkpoint also holds their statistics."""
    output = tmp_path / "out"
    path = recipe(steps=5120, evaluations=10, bpo={**SMALL, "normalize": True, "clip_range": "lin_0.2"})
    command = [sys.executable, "-m", "gbpo.control", path, "--output", str(output)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list(output.glob("seed-0/checkpoint-1???")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    stopped = read_progress(last_checkpoint(output / "seed-0"))
    assert 1000 <= stopped.steps < 5120
    assert not results(output)["seeds"][0]["finished"]

    plan = parse([path]).plan
    agent = agents.load(plan, last_checkpoint(output / "seed-0"), seed=1)
    assert agent.num_timesteps == stopped.steps and agent.get_vec_normalize_env().obs_rms.count > stopped.steps

    assert subprocess.run(command, env=environment, capture_output=True, check=True)
    seed = results(output)["seeds"][0]
    assert seed["finished"]
    steps = [point["steps"] for point in seed["curve"]]
    assert steps == sorted(set(steps)) and len(steps) == 11
    seconds = [point["seconds"] for point in seed["curve"]]
    assert seconds == sorted(seconds)
    assert seed["curve"][: len(stopped.curve)] == [vars(point) for point in stopped.curve]
    assert (output / "seed-0" / f"log-from-{stopped.steps}").is_dir()
    # the schedule covers the whole run, not only its second part
    last = agents.load(plan, last_checkpoint(output / "seed-0"), seed=1)
    assert last._total_timesteps == 5120


def test_an_incomplete_checkpoint_is_ignored(tmp_path):
    progress = Progress([Evaluation(10, 1.0, [1.0], None)])
    write_checkpoint(tmp_path, progress, lambda place: (place / "model.zip").write_text("first"))

    def fail(place):
        (place / "model.zip").write_text("half")
        raise OSError("No space left on device")

    progress.curve.append(Evaluation(20, 2.0, [2.0], None))
    with pytest.raises(OSError):
        write_checkpoint(tmp_path, progress, fail)
    assert (last_checkpoint(tmp_path) / "model.zip").read_text() == "first"
    write_checkpoint(tmp_path, progress, lambda place: (place / "model.zip").write_text("second"))
    assert [path.name for path in tmp_path.glob("*")] == ["checkpoint-20"]


def test_every_evaluation_has_the_same_starts(recipe):
    plan = parse([recipe()]).plan
    agent, envs = agents.build(plan, 0), evaluation.make_environments(plan, 20)
    first = evaluation.evaluate(agent, envs, deterministic=True)
    assert evaluation.evaluate(agent, envs, deterministic=True) == first
    assert len(first) == 20 and len(set(first)) > 1  # different starts
    state = torch.get_rng_state()
    sampled = evaluation.evaluate(agent, envs, deterministic=False)
    assert torch.equal(torch.get_rng_state(), state)  # training goes on with its own random numbers
    assert evaluation.evaluate(agent, envs, deterministic=False) == sampled != first


def test_progress_of_an_earlier_version_has_no_sampled_returns(tmp_path):
    (tmp_path / "progress.json").write_text(
        '[{"steps": 5, "seconds": 1.0, "eval_returns": [2.0], "train_return_mean": null}]'
    )
    assert read_progress(tmp_path).curve == [Evaluation(5, 1.0, [2.0], None, None)]


def test_film(recipe, tmp_path):
    pytest.importorskip("pygame")
    run(recipe(steps=64), "--video", "--output", tmp_path / "out")
    with Image.open(tmp_path / "out" / "seed-0.webp") as film:  # WebP stores equal frames in a row once
        assert film.is_animated and film.n_frames > 4


@pytest.mark.parametrize("frame", [None, RuntimeError("no display")])
def test_a_film_that_cannot_be_made_is_refused_before_training(frame, recipe, tmp_path, monkeypatch, capsys):
    def render(self):
        if frame is not None:
            raise frame

    monkeypatch.setattr("gymnasium.envs.classic_control.CartPoleEnv.render", render)
    with pytest.raises(SystemExit) as stop:
        run(recipe(), "--video", "--output", tmp_path / "out")
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1 and not (tmp_path / "out").exists()
    assert "env='CartPole-v1' cannot be rendered" in error and "Remove --video" in error


@pytest.mark.slow
def test_bpo_learns_cartpole(tmp_path):
    run(ROOT / "recipes" / "control" / "cartpole.yaml", "--seeds", 0, "--steps", 40_960, "--output", tmp_path / "out")
    assert results(tmp_path / "out")["seeds"][0]["eval_return_mean"] >= 475


@pytest.mark.parametrize(
    ("keys", "flags", "message"),
    [
        ({"stepps": 5}, [], "Unknown key 'stepps'.*Did you mean 'steps'?"),
        ({"bpo": {"clip_rang": 0.2}}, [], "Unknown setting 'clip_rang' of bpo. Did you mean 'clip_range'?"),
        ({"ppo": {"temperature": 1.0}}, [], "Unknown setting 'temperature' of ppo"),
        ({"bpo": {"n_steps": "many"}}, [], "n_steps='many' is not an integer"),
        ({"bpo": {"n_steps": 1.5}}, [], "n_steps=1.5 is not an integer"),
        ({"bpo": {"temperature": True}}, [], "temperature=True is not a number"),
        ({"bpo": {"normalize": "yes, please"}}, [], "normalize='yes, please' is not a boolean"),
        ({"bpo": {"n_envs": 0}}, [], "n_envs=0 "),
        ({"bpo": {"n_epochs": 0}}, [], "n_epochs=0 would make training impossible or wrong. Write a number ≥ 1."),
        ({"bpo": {"batch_size": 0}}, [], "batch_size=0 "),
        ({"ppo": {"n_steps": -5}}, [], "n_steps=-5 "),
        ({"bpo": {"gae_lambda": 5}}, [], "gae_lambda=5.0 .* in \\[0, 1\\]"),
        ({"bpo": {"max_grad_norm": -1}}, [], "max_grad_norm=-1.0 "),
        ({"bpo": {"gamma": None}}, [], "gamma=None is not a number"),
        ({"bpo": {"device": "tpu"}}, [], "bpo rejects.*'device': 'tpu'"),
        ({"bpo": {"learning_rate": "lin_fast"}}, [], "learning_rate='fast' is not a number"),
        ({"bpo": {"policy_kwargs": {"activation_fn": "ReLu"}}}, [], "activation_fn='ReLu'.*Did you mean 'ReLU'?"),
        ({"bpo": {"policy_kwargs": {"layers": [8]}}}, [], "bpo rejects.*layers"),
        ({"bpo": {"clip_range": 2.0}}, [], "clip_range=2.0 puts the lower bound"),
        ({"bpo": [1]}, [], "settings=\\[1\\] is not a mapping"),
        ({"env": "CartPol-v1"}, [], "env='CartPol-v1'.*CartPole"),
        ({"env": 5}, [], "env=5 is not the id of an environment"),
        ({"env": "Tetris-v0"}, [], "env='Tetris-v0'"),
        ({"env_kwargs": {"gravity": 0}}, [], "env_kwargs={'gravity': 0}"),
        ({"seeds": ["zero"]}, [], "seeds=\\['zero'\\] must be integers"),
        ({}, ["--seeds", "0,1"], "'0,1' is not an integer.* by spaces: --seeds 0 1\\."),
        ({}, ["--seeds", "-1"], "seeds=\\[-1\\] must be integers"),
        ({}, ["--steps", "0"], "steps=0 would train"),
        ({}, ["--algorithm", "sac"], "invalid choice: 'sac'"),
        ({}, ["--env", "CartPole-v1"], "[Gg]ive either a recipe"),
        ({"evaluations": 0}, [], "evaluations=0 would"),
    ],
)
def test_bad_input_prints_one_line_and_writes_nothing(keys, flags, message, recipe, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        run(recipe(**keys), *flags, "--output", tmp_path / "out")
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.startswith("gbpo control: error: ") and error.count("\n") == 1
    assert re.search(message, error), error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Neither is given, so it is unknown what to train on. Give either a recipe"),
        (["--env", "CartPole-v1"], "steps is missing"),
        (["none.yaml"], "none.yaml not found"),
    ],
)
def test_an_incomplete_command_prints_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        train.main(arguments)
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_atari_without_ale_py_names_the_package_to_install(monkeypatch):
    monkeypatch.setattr(environments, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=re.escape(install_command("atari"))):
        environments.make(Plan("PongNoFrameskip-v4", "bpo", 100), 1, 0)


def test_a_folder_with_other_files_or_another_run_is_refused(recipe, tmp_path, capsys):
    output = tmp_path / "out"
    output.mkdir()
    (output / "thesis.txt").write_text("years of work")
    for prepare, message in [
        (lambda: None, "holds files that do not belong to a control run"),
        (lambda: (shutil.rmtree(output), output.write_text("")), "is a file"),
        (
            lambda: (output.unlink(), run(recipe(steps=128), "--output", output)),
            "holds a run with steps=128, but this run has 512",
        ),
    ]:
        prepare()
        with pytest.raises(SystemExit):
            run(recipe(), "--output", output)
        assert message in capsys.readouterr().err


def test_a_folder_in_which_another_process_begins_is_not_refused(recipe, tmp_path):
    """The processes of one study start together: the folder of a seed is there before `results.json`."""
    command = parse([str(recipe()), "--output", str(tmp_path / "out"), "--seeds", "1"])
    locks = folder.claim(command)
    folder.check(command.output, command.plan)
    write_results(command.output, command.plan, ["gbpo", "control"])
    folder.check(command.output, command.plan)
    with pytest.raises(ValueError, match="holds a run with algorithm=bpo, but this run has ppo"):
        folder.check(command.output, parse([str(recipe()), "--algorithm", "ppo"]).plan)
    assert len(locks) == 1


def test_results_name_a_command_that_a_user_can_repeat(recipe, tmp_path, monkeypatch):
    path = Path(recipe(steps=128))
    monkeypatch.chdir(tmp_path)
    run(path, f"--output={tmp_path / 'out'}")
    words = json.loads((tmp_path / "out" / "results.json").read_text())["command"]
    assert words[:3] == ["gbpo", "control", str(path.relative_to(tmp_path))]
    assert words[-2:] == ["--output", "out"]


@pytest.fixture
def unfinished(recipe, tmp_path):
    """A run whose first checkpoint is left, as after kill -9 → path of the recipe, and the checkpoint."""
    path = recipe(steps=256, evaluations=2, bpo={**SMALL, "normalize": True})
    command = parse([path, "--output", str(tmp_path / "out")])
    write_results(command.output, command.plan)
    agent = agents.build(command.plan, 0).learn(128)
    progress = Progress([Evaluation(128, 1.0, [9.0, 10.0], None, [8.0, 9.0])])
    (command.output / "seed-0").mkdir()
    return path, write_checkpoint(command.output / "seed-0", progress, lambda place: agents.save(agent, place))


@pytest.mark.parametrize("name", ["model.zip", "normalize.pkl", "progress.json"])
@pytest.mark.parametrize("damage", ["missing", "half"])
def test_a_damaged_checkpoint_is_refused_before_training(name, damage, unfinished, tmp_path, capsys):
    path, checkpoint = unfinished
    content = (checkpoint / name).read_bytes()
    (checkpoint / name).unlink()
    if damage == "half":
        (checkpoint / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(SystemExit) as stop:
        run(path, "--seeds", 1, 0, "--output", tmp_path / "out")
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1
    assert f"The checkpoint '{checkpoint}' is damaged" in error
    assert not list((tmp_path / "out" / "seed-1").glob("checkpoint-*"))


def test_copies_beside_a_checkpoint_are_ignored(unfinished, tmp_path):
    path, checkpoint = unfinished
    shutil.copytree(checkpoint, f"{checkpoint} (copy)")
    shutil.copytree(checkpoint.parent, tmp_path / "out" / "seed-0-old")
    run(path, "--output", tmp_path / "out")
    [seed] = results(tmp_path / "out")["seeds"]
    assert seed["seed"] == 0 and [point["steps"] for point in seed["curve"]] == [128, 256]


def test_checkpoints_of_unknown_settings_are_not_resumed(unfinished, tmp_path, capsys):
    path, checkpoint = unfinished
    (tmp_path / "out" / "results.json").unlink()
    with pytest.raises(SystemExit):
        run(path, "--output", tmp_path / "out")
    assert "holds checkpoint-128, but no results.json" in capsys.readouterr().err
    assert checkpoint.is_dir() and not (tmp_path / "out" / "results.json").exists()


@pytest.mark.parametrize("change", [lambda found: found.pop("seeds"), lambda found: found.update(seeds=[{"run": 0}])])
def test_results_of_another_version_are_refused_by_name(change, unfinished, tmp_path, capsys):
    file = tmp_path / "out" / "results.json"
    found = json.loads(file.read_text())
    change(found)
    file.write_text(json.dumps(found))
    with pytest.raises(SystemExit):
        run(unfinished[0], "--output", tmp_path / "out")
    error = capsys.readouterr().err
    assert f"The seeds in '{file}' cannot be read" in error and error.count("\n") == 1


def test_a_seed_that_another_process_trains_is_refused(recipe, tmp_path, capsys):
    command = parse([recipe(), "--output", str(tmp_path / "out")])
    locks = folder.claim(command)
    write_results(command.output, command.plan)
    with pytest.raises(SystemExit):
        run(recipe(), "--output", tmp_path / "out")
    assert "seed=0" in capsys.readouterr().err
    for lock in locks:
        lock.release()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_parses_and_its_header_is_complete(path):
    for algorithm in ALGORITHMS:
        command = parse([str(path), "--algorithm", algorithm])
        assert command.output == Path("runs") / f"{path.stem}-{algorithm}"
        assert command.plan.steps >= 50_000 and len(command.seeds) >= 3
        batch, rollout = (
            command.plan.settings.get(name, default) for name, default in (("batch_size", 64), ("n_steps", 2048))
        )
        assert rollout * command.plan.n_envs % batch == 0
    header = path.read_text().split("\n\nenv:")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    assert f"gbpo control {path.stem} --algorithm ppo " in header and f"python -m evals.control {path.stem} " in header
    for word in ("Hardware: ", "Time: ", "steps/s"):
        assert word in header
    assert re.search("measured|estimated", header)


def test_the_list_of_shipped_recipes():
    classic = {"cartpole", "acrobot", "pendulum", "lunarlander"}
    mujoco = {"swimmer", "hopper", "halfcheetah", "walker2d", "ant", "humanoid"}
    assert {path.stem for path in RECIPES} == classic | mujoco | {"asterix", "breakout", "pong", "boxing"}


PUBLISHED = {  # n_envs, n_steps, batch, learning rate, epochs, ε, T, γ, λ, gradient clip, entropy
    "hopper": (4, 512, 32, 9.808e-5, 10, 0.25, 10.0, 0.999, 0.95, 1.0, 0.0),
    "ant": (1, 2048, 256, 1e-4, 10, 0.3, 1e-3, 0.99, 0.95, 1.0, 0.0),
    "humanoid": (1, 512, 128, 1e-4, 5, 0.2, 1e-3, 0.99, 0.95, 2.0, 0.0),
    "swimmer": (4, 1024, 256, 3e-4, 10, 0.1, 1e-2, 0.9999, 0.98, 1.0, 0.0),
    "halfcheetah": (1, 2048, 64, 3e-4, 10, 0.3, 1e-3, 0.99, 0.95, 1.0, 0.0),
    "walker2d": (1, 2048, 64, 3e-4, 10, 0.3, 1e-3, 0.99, 0.95, 1.0, 0.0),
    **dict.fromkeys(
        ("asterix", "breakout", "pong", "boxing"), (8, 128, 256, 2.5e-4, 5, 0.3, 1e-3, 0.98, 0.95, 1.0, 1e-3)
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_recipes_have_the_published_settings(name, random_env):
    plan = parse([str(ROOT / "recipes" / "control" / f"{name}.yaml")]).plan
    agent = BPO("MlpPolicy", "CartPole-v1", **plan.arguments(), _init_setup_model=False)
    names = "n_steps batch_size learning_rate n_epochs clip_range temperature gamma gae_lambda max_grad_norm ent_coef"
    assert (plan.n_envs, *(getattr(agent, name) for name in names.split())) == PUBLISHED[name]
    assert (agent.vf_coef, agent.median_coef, agent.target_baseline, agent.normalize_advantage) == (
        0.5,
        0.5,
        "median",
        False,
    )
    assert not plan.normalize
