"""Settings that come from the run that trained a model, or from a recipe, and options that replace them."""

import json
import shutil
from pathlib import Path

import pytest

from evals.evaluate import command, generation
from evals.evaluate.checkpoint import Checkpoint
from evals.evaluate.options import find_origin, models_and_data_set, parser, settings_of
from evals.evaluate.origin import trained_model
from gbpo.run.data.prompts import PromptFormat
from gbpo.run.models.tiny import character_tokenizer
from gbpo.run.output.folder import write_config
from gbpo.run.recipe.parsing import parse
from templates import NO_SYSTEM, PLAIN, SWITCH

ROWS = '{"problem": "1+1=", "answer": "2"}\n{"problem": "1+2=", "answer": "3"}\n'
RECIPE = """
model_name_or_path: builtin:tiny_math
dataset_name: train.jsonl
eval_dataset_name: held_out.jsonl
eval_strategy: steps
dataset_columns: {problem: prompt, answer: solution}
system_prompt: Be brief.
prompt_template: "{prompt} Now"
chat_template_kwargs: {enable_thinking: false}
reward_funcs: [exact_match, format]
reward_kwargs: {format: {pattern: ".*"}}
max_completion_length: 7
temperature: 0.9
top_p: 0.8
"""
FORM = PromptFormat("Be brief.", "{prompt} Now", None, {"enable_thinking": False})


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory with the files that the recipe names."""
    monkeypatch.chdir(tmp_path)
    for name in ("train", "held_out", "other"):
        (tmp_path / f"{name}.jsonl").write_text(ROWS)
    return tmp_path


def save_run(folder, model, fields=RECIPE, flags=(), template=SWITCH):
    """The output folder of a finished run with a checkpoint."""
    recipe = folder.parent / f"{folder.name}.yaml"
    recipe.write_text(fields)
    write_config(folder, parse([str(recipe), *flags]), step=0)
    for name in ("model", "checkpoint-4"):
        shutil.copytree(model, folder / name)
        (folder / name / "chat_template.jinja").write_text(template)
    return str(folder)


@pytest.fixture
def run(here, model):
    return save_run(here / "mine", model)


def settings(*argv):
    options = parser("").parse_args(list(map(str, argv)))
    models, data_set = models_and_data_set(options.names)
    return settings_of(options, data_set, find_origin(models, options))


@pytest.mark.parametrize("part", ["", "/", "/model", "/checkpoint-4"])
def test_the_settings_of_a_run_are_those_of_its_training(run, part):
    found = settings(run + part, "--samples", 3)
    assert found.prompts == FORM
    assert found.run.dataset_name == "held_out.jsonl"
    assert found.run.dataset_columns == {"problem": "prompt", "answer": "solution"}
    assert found.run.reward_funcs == ["exact_match"] and not found.run.reward_kwargs
    assert (found.temperature, found.top_p, found.max_tokens, found.samples) == (0.9, 0.8, 7, 3)
    assert trained_model(run + part).removeprefix(run) in ("/model", part)


def test_options_replace_the_settings_of_the_run(run):
    found = settings(
        *(run, "other.jsonl", "--reward", "format", "--temperature", 1.5, "--system_prompt", "Add."),
        *("--chat_template_kwargs", "{}", "--columns", "{problem: prompt}"),
    )
    assert found.run.dataset_name == "other.jsonl" and found.run.dataset_columns == {"problem": "prompt"}
    assert found.prompts == PromptFormat("Add.", "{prompt} Now", None, {})
    assert found.run.reward_funcs == ["format"] and found.run.reward_kwargs == {"format": {"pattern": ".*"}}
    assert (found.temperature, found.top_p, found.max_tokens) == (1.5, 0.8, 7)
    assert settings(run, "--reward", "format", "--reward_kwargs", "{pattern: x}").run.reward_kwargs == {
        "format": {"pattern": "x"}
    }


def test_a_recipe_gives_its_settings_to_a_model_outside_a_run(here, model):
    (here / "mine.yaml").write_text(RECIPE)
    found = settings(model, "--recipe", "mine.yaml")
    assert found.prompts == FORM and found.run.dataset_name == "held_out.jsonl"
    assert (found.temperature, found.top_p, found.max_tokens) == (0.9, 0.8, 7)
    (here / "short.yaml").write_text("dataset_name: arithmetic\nreward_funcs: [exact_match]\n")
    found, defaults = (
        settings(model, "--recipe", "short.yaml"),
        parse(["short.yaml", "--model_name_or_path=m"]).training,
    )
    assert (found.temperature, found.max_tokens) == (defaults.temperature, defaults.max_completion_length)


def test_without_a_run_the_defaults_stay(model):
    found = settings(model, "other.jsonl", "--reward", "exact_match")
    assert found.prompts == PromptFormat() and found.run.dataset_train_split == "test"
    assert (found.temperature, found.top_p, found.max_tokens, found.samples) == (0.6, 0.95, 1024, 16)


@pytest.mark.parametrize(
    ("fields", "dataset", "split"),
    [
        ("dataset_name: some/set\ndataset_test_split: validation\n", "some/set", "validation"),
        ("dataset_name: some/set\n", "some/set", "test"),
        ("dataset_name: arithmetic\ndataset_kwargs: {size: 9}\n", "arithmetic", "test"),
    ],
)
def test_without_a_data_set_the_questions_are_those_that_the_run_did_not_train_on(here, model, fields, dataset, split):
    fields += "model_name_or_path: builtin:tiny_math\nreward_funcs: [exact_match]\n"
    run = settings(save_run(here / "mine", model, fields)).run
    assert (run.dataset_name, run.dataset_train_split) == (dataset, split)
    assert run.dataset_kwargs == ({"size": 9} if dataset == "arithmetic" else {})
    other = settings(here / "mine", "other.jsonl").run
    assert (other.dataset_name, other.dataset_train_split, other.dataset_kwargs) == ("other.jsonl", "test", {})


def test_a_checkpoint_has_the_settings_of_the_time_when_it_was_saved(here, model):
    run = save_run(here / "mine", model)
    write_config(here / "mine", parse(["mine.yaml", "--system_prompt", "Later."]), step=10)
    (here / "mine" / "checkpoint-4").rename(here / "mine" / "checkpoint-10")
    shutil.copytree(here / "mine" / "checkpoint-10", here / "mine" / "checkpoint-12")
    assert settings(f"{run}/checkpoint-10").run.system_prompt == "Be brief."
    assert settings(f"{run}/checkpoint-12").run.system_prompt == settings(run).run.system_prompt == "Later."


def test_the_template_is_the_one_that_the_model_was_trained_with(here, model):
    (here / "own.jinja").write_text(SWITCH)
    run = save_run(here / "mine", model, flags=["--chat_template_path", "own.jinja"])
    (here / "own.jinja").unlink()
    assert settings(run).run.chat_template_path == f"{run}/model/chat_template.jinja"


def test_runs_with_other_prompts_are_not_evaluated_together(here, model):
    first, same = save_run(here / "first", model), save_run(here / "same", model)
    other = save_run(here / "other", model, flags=["--chat_template_kwargs", "{enable_thinking: true}"])
    assert settings(first, same).prompts == FORM
    assert settings(first, other, "--chat_template_kwargs", "{}").chat_template_kwargs == {}
    with pytest.raises(ValueError, match=r"chat_template_kwargs=.*False.*True.*one by one"):
        settings(first, other)


WRONG = {
    "the majority as the test": ("majority", ["majority_vote", "--reward"]),
    "no questions": ("no_questions", ["'train.jsonl'", "no eval_dataset_name", "data set last"]),
    "no model": ("unfinished", ["has not saved its model", "checkpoint-4"]),
    "a template that refuses the system prompt": ("gemma", ["system_prompt='Be brief.'", "refuses", "prompt_template"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_is_one_line_before_any_model_is_loaded(case, here, model, monkeypatch, capsys):
    monkeypatch.setattr(Checkpoint, "load", lambda checkpoint: pytest.fail("a model was loaded"))
    name, words = WRONG[case]
    fields = RECIPE
    if name == "no_questions":
        fields = fields.replace("eval_dataset_name: held_out.jsonl\neval_strategy: steps\n", "")
    flags = ["--reward_funcs", "majority_vote", "--reward_kwargs", "{}"] if name == "majority" else []
    run = save_run(here / name, model, fields, flags, NO_SYSTEM if name == "gemma" else SWITCH)
    if name == "unfinished":
        shutil.rmtree(here / name / "model")
    with pytest.raises(SystemExit) as stop:
        command.main([run])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.count("\n") == 1 and error.startswith("gbpo evaluate: error: "), error
    for word in words:
        assert word in error


def test_one_line_says_where_the_settings_come_from(run, monkeypatch, capsys):
    asked = []

    def complete(checkpoint, prompts, settings):
        asked.extend(prompt.ids for prompt in prompts)
        return [[1]] * 4, [[1]] * 2

    monkeypatch.setattr(generation, "complete", complete)
    command.main([run, "--samples", "2", "--temperature", "0.5", "--output", "out.json"])
    printed = capsys.readouterr()
    (line,) = [line for line in printed.out.splitlines() if line.startswith("gbpo evaluate: from ")]
    assert "dataset_train_split" not in line  # a file has no splits
    taken, _, given = line.partition("; from the command line: ")
    for words in (
        f"from {run}/config.json: dataset_name='held_out.jsonl'",
        "system_prompt='Be brief.'",
        "chat_template_kwargs={'enable_thinking': False}",
        "reward_funcs=['exact_match']",
        "top_p=0.8",
        "max_tokens=7",
    ):
        assert words in taken
    assert given == "temperature=0.5" and "temperature" not in taken
    text = "<|system|>Be brief.<|end|><|user|>1+{}= Now<|end|><|assistant|><think>\n\n</think>\n\n"
    assert asked == character_tokenizer()([text.format(1), text.format(2)])["input_ids"]
    (written,) = json.loads(Path("out.json").read_text())
    assert written["model"] == f"{run}/model"
    assert written["settings"]["chat_template_kwargs"] == {"enable_thinking": False}


def test_extraction_and_long_prompts_are_those_of_the_training(here, model, monkeypatch, capsys):
    asked = []

    def complete(checkpoint, prompts, settings):
        asked.extend(checkpoint.tokenizer.decode(prompt.ids) for prompt in prompts)
        return [[1]] * len(prompts), [[1]] * len(prompts)

    monkeypatch.setattr(generation, "complete", complete)
    rows = [("1+1=", "one and one #### 2"), ("1111+1=", "#### 1,112")]
    text = "".join(json.dumps({"problem": problem, "answer": answer}) + "\n" for problem, answer in rows)
    (here / "held_out.jsonl").write_text(text)
    fields = RECIPE + "dataset_extract: {solution: 'after ####'}\nmax_prompt_tokens: 43\n"
    run = save_run(here / "mine", model, fields)
    found = settings(run).run
    assert found.dataset_extract == {"solution": "after ####"} and found.max_prompt_tokens == 43
    command.main([run, "--samples", "1"])
    text = "<|system|>Be brief.<|end|><|user|>1+1= Now<|end|><|assistant|><think>\n\n</think>\n\n"
    assert asked == [text]
    assert "drops 1 of 2 prompts of the evaluation set" in capsys.readouterr().err
    assert settings(run, "--extract", "{solution: last box}").run.dataset_extract == {"solution": "last box"}
    assert settings(run, "--max_prompt_tokens", "50").run.max_prompt_tokens == 50


def test_hazards_of_the_prompts_and_rewards_are_printed_once(here, model, monkeypatch, capsys):
    monkeypatch.setattr(generation, "complete", lambda checkpoint, prompts, settings: ([[1]] * 4, [[1]] * 2))
    runs = [save_run(here / name, model, template=PLAIN) for name in ("first", "second")]
    command.main([*runs, "--samples", "2", "--reward", "math", "--reward_kwargs", "{workers: 1}"])
    printed = capsys.readouterr().err
    assert printed.count("does not read enable_thinking") == 2  # the line names the model
    assert printed.count("none of the first 2 prompts") == 1
