"""Bad input: one line with the value and the mend, exit status 2, before any model, nothing written or overwritten."""

from pathlib import Path

import pytest

from gbpo.run import train

TINY = str(Path(__file__).parents[2] / "recipes" / "tiny_math.yaml")
MATHS = ["--dataset_columns", "{problem: prompt, answer: solution}"]

FILES = {
    "good.jsonl": '{"problem": "1+1=", "answer": "2"}\n' * 40,
    "few.jsonl": '{"problem": "1+1=", "answer": "2"}\n' * 3,
    "empty.jsonl": "",
    "blank.jsonl": "\n\n",
    "header.csv": "problem,answer\n",
    "broken.jsonl": "problem: 1+1=\n",
    "hole.jsonl": '{"problem": "1+1=", "answer": "2"}\n{"problem": null, "answer": "2"}\n' * 40,
    "bad_golds.jsonl": '{"problem": "1+1=", "answer": "?"}\n{"problem": "1+2=", "answer": "3"}\n' * 20,
    "typo.yaml": "model_name_or_path: builtin:tiny_math\ndataset_name: arithmetic\nlearning_rat: 1.0e-6\n",
    "list.yaml": "- 1\n- 2\n",
    "broken.yaml": "a: [1\nb: 2",
    "data.txt": "1+1=2",
    "module_with_reward.py": "value = 3\ndef reward(completions, proof, **kwargs):\n    return [1.0]\n",
    "done/config.json": "{}",
    "done/metrics.jsonl": '{"step": 1}\n',
    "weights/readme.txt": "no model here",
}

# arguments → words that the line must hold: the value given, and what to write
CASES = {
    "no recipe": ([], ["RECIPE"]),
    "missing recipe": (["nowhere.yaml"], ["nowhere.yaml", "path"]),
    "recipe is a list": (["list.yaml"], ["list.yaml", "field: value"]),
    "recipe is not YAML": (["broken.yaml"], ["broken.yaml", "YAML"]),
    "unknown key in the recipe": (["typo.yaml"], ["learning_rat", "learning_rate"]),
    "unknown key on the command line": ([TINY, "--target_baselin", "exact"], ["target_baselin", "target_baseline"]),
    "abbreviated key": ([TINY, "--num_iter", "4"], ["num_iter", "num_iterations"]),
    "stray word": ([TINY, "epsilon"], ["epsilon"]),
    "not a number": ([TINY, "--learning_rate", "fast"], ["learning_rate", "fast"]),
    "not a mapping": ([TINY, "--dataset_columns", "problem"], ["dataset_columns", "problem", "key: value"]),
    "unknown algorithm": ([TINY, "--algorithm", "ppo"], ["ppo", "gbpo, grpo"]),
    "missing file": ([TINY, "--dataset_name", "nowhere.jsonl"], ["nowhere.jsonl", "path"]),
    "other file": ([TINY, "--dataset_name", "data.txt"], ["data.txt", ".jsonl"]),
    "broken file": ([TINY, "--dataset_name", "broken.jsonl"], ["broken.jsonl", "JSON"]),
    "zero bytes": ([TINY, "--dataset_name", "empty.jsonl"], ["empty.jsonl", "zero rows"]),
    "zero rows, JSONL": ([TINY, "--dataset_name", "blank.jsonl"], ["blank.jsonl", "zero rows"]),
    "zero rows, CSV": ([TINY, "--dataset_name", "header.csv"], ["header.csv", "zero rows"]),
    "zero rows, generated": ([TINY, "--dataset_kwargs", "{size: 0}"], ["arithmetic", "zero rows"]),
    "too few rows": ([TINY, "--dataset_name", "few.jsonl", *MATHS], ["few.jsonl", "3 prompts", "24"]),
    "prompt missing in a row": ([TINY, "--dataset_name", "hole.jsonl", *MATHS], ["Row 1", "None"]),
    "no prompt column": ([TINY, "--dataset_name", "good.jsonl"], ["prompt", "problem, answer", "dataset_columns"]),
    "wrong column": (
        [TINY, "--dataset_name", "good.jsonl", "--dataset_columns", "{question: prompt}"],
        ["question", "problem, answer"],
    ),
    "no solution column": (
        [TINY, "--dataset_name", "good.jsonl", "--dataset_columns", "{problem: prompt}"],
        ["exact_match", "solution", "answer"],
    ),
    "wrong argument of a task": ([TINY, "--dataset_kwargs", "{sise: 9}"], ["sise", "arithmetic"]),
    "unknown reward": ([TINY, "--reward_funcs", "exact_mach"], ["exact_mach", "exact_match"]),
    "no reward": (["no_reward.yaml"], ["reward_funcs"]),
    "reward module missing": ([TINY, "--reward_funcs", "no_such_module.reward"], ["no_such_module"]),
    "reward is no function": ([TINY, "--reward_funcs", "module_with_reward.value"], ["value"]),
    "own reward, column missing": (
        [TINY, "--reward_funcs", "module_with_reward.reward"],
        ["proof", "prompt, solution"],
    ),
    "unknown reward option": ([TINY, "--reward_kwargs", "{exact_match: {strict: true}}"], ["strict", "exact_match"]),
    "golds that do not parse": (
        [TINY, "--dataset_name", "bad_golds.jsonl", *MATHS, "--reward_funcs", "math"],
        ["20 of 40 rows", "'math'", "row 0: no_gold", "rewards.check"],
    ),
    "votes that are no multiple": (
        [TINY, "--reward_funcs", "majority_vote", "--reward_kwargs", "{majority_vote: {votes: 20, boxed: false}}"],
        ["votes=20", "num_generations=8", "votes=16"],
    ),
    "unknown layer of the sandbox": (
        [TINY, "--reward_funcs", "code", "--reward_kwargs", "{code: {allow_missing: [netwrk]}}"],
        ["netwrk", "network"],
    ),
    "options of an absent reward": ([TINY, "--reward_kwargs", "{math: {}}"], ["math", "reward_funcs"]),
    "group of one": ([TINY, "--num_generations", "1"], ["num_generations=1", "2"]),
    "indivisible batch": ([TINY, "--num_generations", "7"], ["7", "256", "num_generations=8"]),
    "epsilon too large": ([TINY, "--epsilon", "1.5"], ["1.5", "(0, 1]"]),
    "epsilon zero": ([TINY, "--epsilon", "0"], ["0", "(0, 1]"]),
    "epsilon_high negative": ([TINY, "--epsilon_high", "-0.1"], ["-0.1", "positive"]),
    "foreign loss": ([TINY, "--loss_type", "sapo"], ["sapo", "dapo"]),
    "unknown builtin": ([TINY, "--model_name_or_path", "builtin:huge"], ["builtin:huge", "builtin:tiny_math"]),
    "missing model folder": ([TINY, "--model_name_or_path", "./nowhere"], ["./nowhere", "config.json"]),
    "folder without a model": ([TINY, "--model_name_or_path", "weights"], ["weights"]),
    "model out of reach": ([TINY, "--model_name_or_path", "nobody/nothing"], ["nobody/nothing", "local folder"]),
    "data set out of reach": ([TINY, "--dataset_name", "nobody/nothing"], ["nobody/nothing", "local file"]),
    "template without a place": ([TINY, "--prompt_template", "Solve it."], ["Solve it.", "{prompt}"]),
    "taken folder": ([TINY, "--output_dir", "done"], ["done", "config.json", "--resume_from_checkpoint"]),
    "resume nothing": ([TINY, "--resume_from_checkpoint", "true"], ["--output_dir"]),
    "resume from an empty folder": (
        [TINY, "--output_dir", "weights", "--resume_from_checkpoint", "true"],
        ["weights", "checkpoint"],
    ),
    "evaluation on one file": (
        [TINY, "--dataset_name", "good.jsonl", *MATHS, "--eval_strategy", "steps"],
        ["good.jsonl", "eval_strategy"],
    ),
    "missing chat template": ([TINY, "--chat_template_path", "nowhere.jinja"], ["nowhere.jinja"]),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    recipe = Path(TINY).read_text().replace("reward_funcs: [exact_match]", "")
    (tmp_path / "no_reward.yaml").write_text(recipe)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}


@pytest.mark.parametrize("case", CASES)
def test_one_clear_line_before_any_model(case, folder, monkeypatch, capsys):
    def load(*args, **kwargs):
        raise AssertionError("a model was about to be loaded")

    monkeypatch.setattr(train, "train", load)
    monkeypatch.setattr(train.models.Path, "rename", load)  # nor built
    argv, words = CASES[case]
    before = contents(folder)
    with pytest.raises(SystemExit) as stop:
        train.main(argv)
    assert stop.value.code == 2
    printed = capsys.readouterr().err.strip()
    assert printed.startswith("gbpo: error: ") and "\n" not in printed, printed
    for word in words:
        assert word in printed, printed
    assert contents(folder) == before
    assert not (folder / "runs").exists()


def test_the_command_itself(launch, tmp_path):
    done = launch(TINY, "--num_generations", "1")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("gbpo: error: num_generations=1")
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
