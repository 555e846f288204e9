"""The evaluation in training: when it begins, and how many completions it samples."""

import json
from pathlib import Path

import pytest

import processes
from gbpo.run.recipe.evaluation import set_evaluation
from gbpo.run.recipe.parsing import parse
from rewards import get_reward

ROOT = Path(__file__).parents[3]
TINY = ROOT / "recipes" / "tiny_math.yaml"
ON = ["--eval_strategy", "steps", "--eval_steps", "2"]


@pytest.mark.parametrize(
    ("flags", "reward", "start", "completions"),
    [
        ([], "exact_match", False, None),
        (ON, "exact_match", True, 2),
        (ON, "majority_vote", True, None),  # a vote of 2 would be another reward
        ([*ON, "--eval_on_start", "false", "--num_generations_eval", "8"], "exact_match", False, 8),
        ([*ON, "--per_device_eval_batch_size", "3", "--num_generations_eval", "1"], "exact_match", True, 1),
    ],
)
def test_the_defaults(flags, reward, start, completions):
    recipe = parse(["tiny_math", *flags])
    set_evaluation(recipe, [get_reward(reward)])
    assert (recipe.training.eval_on_start, recipe.training.num_generations_eval) == (start, completions)


def test_an_odd_batch_keeps_the_number_of_the_training():
    batches = ["--per_device_train_batch_size", "129", "--per_device_eval_batch_size", "3"]
    recipe = parse(["tiny_math", *ON, "--num_generations", "3", *batches])
    set_evaluation(recipe, [get_reward("exact_match")])
    assert recipe.training.num_generations_eval is None


def test_a_run_is_evaluated_before_its_first_step_and_once_per_step(random_model, tmp_path):
    """A resumed run is not evaluated a second time where it continues."""
    rows = [json.dumps({"prompt": f"{n}+1=", "solution": str(n + 1)}) for n in range(4)]
    (tmp_path / "held_out.jsonl").write_text("\n".join(rows))
    flags = ["--model_name_or_path", random_model, *ON, "--eval_dataset_name", "held_out.jsonl"]
    flags += ["--save_strategy", "steps", "--save_steps", "2", "--per_device_train_batch_size", "16"]
    flags += ["--output_dir", "run", "--resume_from_checkpoint", "auto", "--disable_tqdm", "true"]
    for steps in (2, 4):
        processes.run_script(ROOT / "launch" / "gbpo.py", TINY, *flags, "--max_steps", steps, cwd=tmp_path)
    logs = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    evaluations = [row for row in logs if "eval_reward" in row]
    assert [row["step"] for row in evaluations] == [0, 2, 4]
    config = json.loads((tmp_path / "run" / "config.json").read_text())["training"]
    assert config["num_generations_eval"] == 2 and config["eval_on_start"]
