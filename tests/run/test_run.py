"""The real command: the demo, other data, own rewards and two processes."""

import json
import re
import sys
from pathlib import Path

import pandas

from gbpo.run.rollouts import files

ROOT = Path(__file__).parents[2]
TINY = ROOT / "recipes" / "tiny_math.yaml"
ACCELERATE = (sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--num_processes", "1")
SMALL = ("--per_device_train_batch_size", 16, "--logging_steps", 1)


def read_rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_the_demo_with_an_empty_cache(launch, tmp_path, monkeypatch):
    """The starting model is built, has a medium reward, and learns within 60 steps."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    done = launch(TINY, "--max_steps", 60, launcher=ACCELERATE, timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = read_rows(tmp_path / "runs" / "tiny_math")
    assert 0.15 <= rows[0]["reward"] <= 0.45
    assert rows[-1]["reward"] > rows[0]["reward"] + 0.1
    assert done.stdout.strip().splitlines()[-1].startswith(f"demo: reward {rows[0]['reward']:.2f} -> ")
    assert "Traceback" not in done.stderr
    built = list((tmp_path / "cache" / "gbpo").glob("tiny_math-*/model.safetensors"))
    assert len(built) == 1
    stamp = built[0].stat().st_mtime_ns
    # a second run builds nothing and does not change the first one
    first = (tmp_path / "runs" / "tiny_math" / "metrics.jsonl").read_bytes()
    done = launch(TINY, "--max_steps", 2, "--logging_steps", 1, launcher=ACCELERATE)
    assert done.returncode == 0, done.stderr[-3000:]
    assert built[0].stat().st_mtime_ns == stamp
    assert (tmp_path / "runs" / "tiny_math" / "metrics.jsonl").read_bytes() == first
    assert len(read_rows(tmp_path / "runs" / "tiny_math-2")) == 2


def test_own_columns_own_reward_and_prompts(launch, boxing_model, tmp_path):
    """A Parquet file with other column names, and a reward from a module in the working directory."""
    table = pandas.DataFrame(
        {"question": [f"{i} mod 3?" for i in range(32)], "target": [str(i % 3) for i in range(32)]}
    )
    path = tmp_path / "table.parquet"
    table.to_parquet(path, index=False)
    (tmp_path / "my_rewards.py").write_text(
        "def contains_answer(completions, target, **kwargs):\n"
        "    return [float(str(t) in c[0]['content']) for c, t in zip(completions, target)]\n"
    )
    done = launch(
        TINY,
        *("--model_name_or_path", boxing_model, "--dataset_name", path.name, "--dataset_columns", "{question: prompt}"),
        *("--reward_funcs", "my_rewards.contains_answer", "--max_steps", 4, "--max_completion_length", 12),
        *("--system_prompt", "Digits only.", "--prompt_template", "Q {prompt} A", *SMALL),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    folder = tmp_path / "runs" / "tiny_math"
    rows = read_rows(folder)
    # two updates per generation, so both rows have its reward
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert all(row["reward"] is not None for row in rows) and rows[0]["reward"] == rows[1]["reward"]
    prompt = pandas.read_parquet(sorted((folder / "completions").glob("*.parquet"))[0])["prompt"][0]
    assert [m["role"] for m in prompt] == ["system", "user"] and prompt[0]["content"] == "Digits only."
    assert prompt[1]["content"].startswith("Q ") and prompt[1]["content"].endswith(" mod 3? A")


def test_two_processes_write_one_run(launch, boxing_model, tmp_path):
    (tmp_path / "my_rewards.py").write_text(
        "def sums(completions, **kwargs):\n"
        "    return [float(sum(map(ord, c[0]['content'])) % 3) for c in completions]\n"
    )
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    flags = ("--max_steps", 4, "--max_completion_length", 12, "--reward_funcs", "my_rewards.sums", *SMALL)
    done = launch(TINY, "--model_name_or_path", boxing_model, *flags, launcher=torchrun)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "2 process(es): 8 prompts × 8 completions" in done.stdout
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["tiny_math"]
    assert [row["step"] for row in read_rows(tmp_path / "runs" / "tiny_math")] == [1, 2, 3, 4]
    assert done.stdout.count("demo: reward") == 1
    found = files.files_of(tmp_path / "runs" / "tiny_math")
    assert [file.first_step for file in found] == [1, 3]
    for record in (files.read(file.path) for file in found):
        assert [len(group["completions"]) for group in record["groups"]] == [8] * 8  # of both processes
        completions = [one for group in record["groups"] for one in group["completions"]]
        assert sum(one["trained"] for one in completions) > 32  # a process has 32
        for one in completions:
            text = one["completion"][0]["content"]
            tokens = "".join(record["vocabulary"][str(token)] for token in one["ids"])
            assert re.sub(r"<\|\w+\|>", "", tokens) == text
            assert one["rewards"]["sums"] == sum(map(ord, text)) % 3
            assert one["trained"] == (one["advantage"] != 0)
            if one["trained"]:
                assert len(one["ratios"]) == len(one["logps"]) == len(one["ids"])
