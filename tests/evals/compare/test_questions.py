"""The held-out questions of a comparison with images or an environment, and the flags of its tests."""

import json

import pytest
from datasets import Dataset, Features, Image, List, Value

import pictures
from evals.compare import command as module
from evals.compare import prepare
from evals.compare.questions import with_image_files, write_questions
from evals.evaluate.options import find_origin, models_and_data_set, parser, settings_of
from evals.shared.results import Results
from gbpo.run.data import images
from gbpo.run.data.loading import load
from gbpo.run.recipe.arguments import RunArguments
from gbpo.shared.packages import find_recipe


@pytest.mark.parametrize("kind", ["images", "bytes", "paths", "lists"])
def test_the_files_hold_the_same_images_in_the_same_order(kind, tmp_path):
    made = [pictures.picture(number) for number in range(6)]
    source = tmp_path / "source"
    source.mkdir()
    for number, picture in enumerate(made):
        picture.save(source / f"{number}.png")
    content = {
        "images": made,
        "bytes": [(source / f"{number}.png").read_bytes() for number in range(6)],
        "paths": [f"{number}.png" for number in range(6)],
        "lists": [made[number : number + 1 + number % 2] for number in range(6)],
    }[kind]
    leaf = {"images": Image(), "bytes": Value("binary"), "paths": Value("string"), "lists": List(Image())}[kind]
    columns = {"prompt": [f"{i}?" for i in range(6)], "solution": [str(i) for i in range(6)], "raw": content}
    features = {"prompt": Value("string"), "solution": Value("string"), "raw": leaf}
    if kind == "lists":  # another column with images, which the runs leave out
        columns["image"], features["image"] = made[::-1], Image()
    questions = Dataset.from_dict(columns, Features(features))
    run = RunArguments(dataset_name="made", image_column="picture", dataset_columns={"raw": "picture"})
    loaded, _ = images.use_images(questions.rename_column("raw", "picture"), "picture", source, "made")
    folder = tmp_path / "comparison"
    folder.mkdir()
    write_questions(folder, with_image_files(questions, loaded, run, folder))
    for name, rows in (("validation", [0, 2, 4]), ("test", [1, 3, 5])):
        path = folder / f"{name}.jsonl"
        assert str(tmp_path) not in path.read_text()  # the folder can be moved
        again, _ = load(
            RunArguments(dataset_name=str(path), image_column="picture", dataset_columns={"raw": "picture"}),
            evaluation=False,
        )
        assert again["solution"] == [str(row) for row in rows]
        found = [[picture.tobytes() for picture in own] for own in images.decoded(again)]
        assert found == [[picture.tobytes() for picture in images.decoded(loaded)[row]] for row in rows]


@pytest.fixture
def planned(tmp_path, monkeypatch, capsys):
    """`planned(recipe, *flags)`: the settings of the tests, as `evals.evaluate` reads them, and the test questions."""

    def plan(recipe, *flags):
        plans = []
        monkeypatch.setattr(module, "run_cells", lambda plan: plans.append(plan))
        folder = tmp_path / "compared"
        argv = [str(find_recipe(recipe)), "--algorithms", "grpo", "gbpo", "--seeds", "0", "--max_steps=9"]
        with pytest.raises(SystemExit) as end:
            module.main([*argv, f"--output={folder}", "--eval_questions=8", *flags])
        assert end.value.code == 1, capsys.readouterr().err  # no run is done
        test = str(folder / "test.jsonl")
        options = parser("").parse_args(["some/model", test, *plans[0].evaluation])
        models, data_set = models_and_data_set(options.names)
        found = settings_of(options, data_set, find_origin(models, options))
        return found, [json.loads(line) for line in open(test)], Results.load(folder)

    return plan


def test_an_environment_gives_its_own_reward(planned, random_model):
    flags = ["--environment={word: builtin:code_word, other: builtin:code_word}", "--reward_funcs=format"]
    settings, rows, results = planned("tiny_environment", f"--model_name_or_path={random_model}", *flags)
    assert settings.run.environment == {"word": "builtin:code_word", "other": "builtin:code_word"}
    assert settings.run.reward_funcs is None and settings.tool_turns == 8 and settings.max_tokens == 64
    assert settings.temperature == 1.0
    assert [row["environment"] for row in rows] == ["other"] * 4 and len({row["seed"] for row in rows}) == 4
    assert results.questions[0]["prompt"] == f"seed={rows[0]['seed']}, environment=other"


def test_eval_reward_replaces_the_reward_of_the_environment(planned, random_model):
    settings, *_ = planned("tiny_environment", f"--model_name_or_path={random_model}", "--eval_reward=format")
    assert settings.run.reward_funcs == ["format"]


def test_images_are_tested(planned, vision_model):
    settings, rows, results = planned("tiny_vision", f"--model_name_or_path={vision_model}")
    assert settings.run.image_column == "image" and settings.engine == "transformers"
    assert [row["image"].split("/")[0] for row in rows] == ["images"] * 4
    assert results.questions[0]["prompt"] == "[image] How many circles?"


def test_the_tasks_of_verifiers_are_refused_before_they_are_loaded(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare.data, "load", lambda *args, **kwargs: pytest.fail("loaded"))
    argv = [str(find_recipe("tiny_environment")), "--algorithms", "grpo", "gbpo", "--seeds", "0"]
    with pytest.raises(SystemExit) as end:
        module.main([*argv, f"--output={tmp_path / 'compared'}", "--environment=verifiers:gsm8k"])
    error = capsys.readouterr().err.strip()
    assert end.value.code == 2 and "\n" not in error
    assert "environment='verifiers:gsm8k': evals.evaluate and evals.compare do not run" in error
