"""Checkpoints are complete, and a run resumed from any of them repeats the rest of the run bit by bit."""

import errno
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers.trainer
from datasets import Dataset, IterableDataset
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Qwen2_5_VLForConditionalGeneration, TrainerState

from gbpo.trainer.base import BaseTrainer
from gbpo.trainer.checkpoints import load_renamed_weights, load_rollout_state, plain_logs, written_whole
from gbpo.trainer.guards.phase_times import PHASES
from rollouts import character_sum

# --- written_whole alone


@pytest.fixture
def write(tmp_path):
    """`write(content, …)`: a checkpoint of one process, saved by `written_whole`."""

    def save(content="new", state=None, fails=False, accelerator=None, name="checkpoint-2"):
        state = state or TrainerState()
        accelerator = accelerator or one_process()
        with written_whole(tmp_path, name, state, accelerator, save=True) as folder:
            (folder / name).mkdir(parents=True, exist_ok=True)
            (folder / name / "weights").write_text(content)
            if fails:
                raise OSError(errno.ENOSPC, "No space left on device")
        return state

    return save


def one_process(**fields):
    values = {"is_local_main_process": True, "is_main_process": True, "wait_for_everyone": lambda: None}
    return SimpleNamespace(**values | fields)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_whole_checkpoint_is_moved_to_its_name(write, tmp_path):
    write()
    assert contents(tmp_path) == {"checkpoint-2/weights": "new"} and not (tmp_path / "_saving").exists()


def test_a_failed_checkpoint_leaves_the_old_one_of_its_name(write, tmp_path):
    write("old")
    with pytest.raises(OSError, match="No space left"):
        write("half", fails=True)
    assert contents(tmp_path) == {"checkpoint-2/weights": "old"} and not (tmp_path / "_saving").exists()
    write("new")
    assert contents(tmp_path) == {"checkpoint-2/weights": "new"}


def test_files_of_a_killed_run_do_not_enter_the_next_checkpoint(write, tmp_path):
    (tmp_path / "_saving" / "checkpoint-2").mkdir(parents=True)
    (tmp_path / "_saving" / "checkpoint-2" / "optimizer").touch()
    write()
    assert contents(tmp_path) == {"checkpoint-2/weights": "new"}


def test_the_best_checkpoint_gets_its_final_name(write, tmp_path):
    state = write(state=TrainerState(best_model_checkpoint=str(tmp_path / "_saving" / "checkpoint-2")))
    assert state.best_model_checkpoint == str(tmp_path / "checkpoint-2")
    saved = json.loads((tmp_path / "checkpoint-2" / "trainer_state.json").read_text())
    assert saved["best_model_checkpoint"] == str(tmp_path / "checkpoint-2")
    other = write(state=TrainerState(best_model_checkpoint="elsewhere"), name="checkpoint-3")
    assert other.best_model_checkpoint == "elsewhere"
    assert not (tmp_path / "checkpoint-3" / "trainer_state.json").exists()


def test_a_checkpoint_is_moved_after_all_ranks_have_written(write, tmp_path):
    """The ranks wait before the folder is written, before it is moved, and at the end."""
    seen = []
    write(accelerator=one_process(wait_for_everyone=lambda: seen.append(sorted(contents(tmp_path)))))
    assert seen[:2] == [[], ["_saving/checkpoint-2/weights"]]
    assert seen[2:] and set(map(tuple, seen[2:])) == {("checkpoint-2/weights",)}


def test_a_rank_that_is_not_the_first_of_its_node_moves_nothing(write, tmp_path):
    write(accelerator=one_process(is_main_process=False, is_local_main_process=False))
    assert contents(tmp_path) == {"_saving/checkpoint-2/weights": "new"}


def test_the_first_rank_of_another_node_moves_its_own_folder(write, tmp_path):
    write(accelerator=one_process(is_main_process=False))
    assert contents(tmp_path) == {"checkpoint-2/weights": "new"}


# --- weights that transformers saves under other names


@pytest.mark.parametrize("name", ["mixtral", "qwen_vl", "gemma"])
def test_the_weights_of_a_checkpoint_are_loaded_whatever_their_names(save_model, vision_model, name):
    """Mixtures of experts and vision-language models are saved under the names of the Hub, others under their own."""
    folder = vision_model if name == "qwen_vl" else save_model(name)
    architecture = Qwen2_5_VLForConditionalGeneration if name == "qwen_vl" else AutoModelForCausalLM
    saved, other = (architecture.from_pretrained(folder) for _ in range(2))
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    assert load_renamed_weights(other, Path(folder)) == (name != "gemma")
    for (key, value), loaded in zip(saved.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(loaded, value if name != "gemma" else value + 1.0), key


# --- in a run

MEASURED_TIMES = {"step_time", "train_runtime", "train_samples_per_second", "train_steps_per_second"}
MEASURED_TIMES |= {f"time/{phase}" for phase in PHASES}
STEPS = 11


def reward(completions, log_extra=None, **kwargs):
    """Depends on the text, so a different completion is noticed; None for some."""
    log_extra("letters", [len(text) for text in completions])
    return [None if value == 4 else value for value in character_sum(completions)]


# In some cases a log or an epoch ends within a generation, in others a generation ends within a log.
CASES = {
    "several updates per generation": {"steps_per_generation": 2, "num_iterations": 2},
    "several generations per log": {"steps_per_generation": 1, "num_iterations": 1, "logging_steps": 4},
    "accumulation and adaptive entropy": {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "steps_per_generation": 4,
        "num_iterations": 2,
        "use_adaptive_entropy": True,
        "entropy_target": 3.0,
        "entropy_coef": 0.01,
    },
    "KL to a reference": {"steps_per_generation": 2, "num_iterations": 2, "beta": 0.1},
}


def history(trainer):
    return [{k: v for k, v in row.items() if k not in MEASURED_TIMES} for row in trainer.state.log_history]


def weights(trainer):
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


@pytest.fixture
def make(make_trainer, tmp_path):
    def make(algorithm, folder, **config):
        defaults = {"save_strategy": "steps", "save_steps": 1, "max_steps": STEPS, "logging_steps": 3, "seed": 3}
        config = defaults | {"log_completions": True, "num_completions_to_print": 0} | config
        dataset = Dataset.from_dict({"prompt": [f"{i}+1=" for i in range(4)]})
        config["base"] = BaseTrainer if algorithm == "grpo" else None
        return make_trainer(
            algorithm, reward_funcs=reward, dataset=dataset, output_dir=str(tmp_path / folder), **config
        )

    return make


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "algorithm"), [("several updates per generation", "grpo"), *((case, "gbpo") for case in CASES)]
)
def test_a_resumed_run_is_bitwise_equal(make, tmp_path, case, algorithm):
    whole = make(algorithm, "whole", **CASES[case])
    whole.train()
    assert whole.state.epoch > 2, "a later epoch must be tested too: its order of prompts is another"
    assert len({row["reward"] for row in history(whole) if "reward" in row}) > 1
    for step in range(1, STEPS):
        again = make(algorithm, f"again-{step}", **CASES[case])
        again.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{step}"))
        assert history(again)[:-1] == history(whole)[:-1], step
        for name, value in weights(whole).items():
            assert torch.equal(weights(again)[name], value), (step, name)
        for path in sorted((tmp_path / f"again-{step}" / "completions").glob("*.parquet")):
            assert path.read_bytes() == (tmp_path / "whole" / "completions" / path.name).read_bytes(), path.name


def test_a_finished_run_takes_no_further_step(make, tmp_path):
    """A batch system may repeat the command of a run that has ended, or that was killed after its last checkpoint."""
    whole = make("gbpo", "run", max_steps=3)
    whole.train()
    assert whole.state.epoch % 1, "at the end of an epoch transformers takes no further step"
    again = make("gbpo", "run", max_steps=3)
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-3"))
    assert again.state.global_step == 3 and names(tmp_path / "run") == ["checkpoint-1", "checkpoint-2", "checkpoint-3"]
    for name, value in weights(whole).items():
        assert torch.equal(weights(again)[name], value), name


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name != "completions")


def test_disk_full_while_saving_leaves_the_last_good_checkpoint(make, tmp_path, monkeypatch):
    trainer = make("gbpo", "run", max_steps=3, save_total_limit=1)

    def full(state, path, *args, **kwargs):
        if "checkpoint-3" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return save(state, path, *args, **kwargs)

    save = torch.save
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        trainer.train()
    assert names(tmp_path / "run") == ["checkpoint-2"]
    monkeypatch.undo()
    again = make("gbpo", "run", max_steps=3)
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert names(tmp_path / "run") == ["checkpoint-2", "checkpoint-3"]


def test_killed_while_saving_leaves_no_half_checkpoint(make, tmp_path, monkeypatch):
    """The old checkpoint is deleted only after the new one has its final name."""
    trainer = make("gbpo", "run", max_steps=3, save_total_limit=1)
    seen = []

    def rename(source, target):
        seen.append(names(tmp_path / "run"))
        return move(source, target)

    move = type(tmp_path).rename
    monkeypatch.setattr(type(tmp_path), "rename", rename)
    trainer.train()
    assert seen == [["_saving"], ["_saving", "checkpoint-1"], ["_saving", "checkpoint-2"]]
    assert names(tmp_path / "run") == ["checkpoint-3"]


def test_an_unfinished_checkpoint_of_a_killed_run_is_removed(make, tmp_path):
    (tmp_path / "run" / "_saving" / "checkpoint-9").mkdir(parents=True)
    make("gbpo", "run", max_steps=1).train()
    assert names(tmp_path / "run") == ["checkpoint-1"]


def test_the_best_checkpoint_is_recorded_by_its_final_name(make, tmp_path):
    trainer = make(
        "gbpo",
        "run",
        max_steps=4,
        eval_strategy="steps",
        eval_steps=1,
        metric_for_best_model="reward",
        per_device_eval_batch_size=8,
        trainer={"eval_dataset": Dataset.from_dict({"prompt": ["2+1=", "3+1="]})},
    )
    trainer.train()
    best = tmp_path / "run" / f"checkpoint-{trainer.state.best_global_step}"
    assert trainer.state.best_model_checkpoint == str(best)
    for checkpoint in names(tmp_path / "run"):
        state = json.loads((tmp_path / "run" / checkpoint / "trainer_state.json").read_text())
        assert "_saving" not in state["best_model_checkpoint"]
        assert Path(state["best_model_checkpoint"]).is_dir()


def test_completions_are_stored_only_within_a_generation(make, tmp_path):
    make("gbpo", "run", max_steps=4, **CASES["several updates per generation"]).train()
    stored = [
        load_rollout_state(tmp_path / "run" / f"checkpoint-{step}", 0, torch.device("cpu"))["completions"] is not None
        for step in range(1, 5)
    ]
    assert stored == [True, True, True, False]


def test_a_checkpoint_is_readable_whatever_a_reward_logs(make_trainer, tmp_path):
    """A reward may log NumPy's scalars and arrays, and objects of its own class."""

    class Own:
        def __str__(self):
            return "own"

    def logs(completions, log_extra=None, log_metric=None, **kwargs):
        values = [np.float32(len(text)) for text in completions]
        log_extra("lengths", values)
        log_extra("numbers", [np.int64(3)] * len(values))
        log_extra("names", [np.str_("a")] * len(values))
        log_metric("largest", max(values))
        return values

    config = {"save_strategy": "steps", "save_steps": 1, "num_iterations": 1, "logging_steps": 9}
    make_trainer(reward_funcs=logs, max_steps=2, **config).train()
    folder = tmp_path / "gbpo" / "checkpoint-1"
    extra = load_rollout_state(folder, 0, torch.device("cpu"))["logs"]["extra"]
    assert {type(value) for column in extra.values() for value in column} == {float, int, str}
    assert plain_logs({"prompt": [], "completion": [], "advantages": [], "rewards": {}, "extra": {"o": [Own()]}})[
        "extra"
    ] == {"o": ["own"]}
    make_trainer(reward_funcs=logs, max_steps=2, **config).train(resume_from_checkpoint=str(folder))


@pytest.mark.slow
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_resumed_run_on_an_iterable_data_set_is_bitwise_equal(make_trainer, tmp_path, accumulation):
    """An epoch has two generations; the checkpoints lie within an epoch and at its end."""
    prompts = [{"prompt": f"{i}+1="} for i in range(4 * accumulation)]
    config = {
        "save_strategy": "steps",
        "save_steps": 1,
        "max_steps": 7,
        "num_iterations": 1,
        "gradient_accumulation_steps": accumulation,
        "dataset": IterableDataset.from_generator(lambda: iter(prompts)),
        "reward_funcs": lambda completions, **_: [float(len(set(text))) for text in completions],
    }
    whole = make_trainer(**config)
    whole.train()
    assert whole.state.epoch > 3
    for step in range(1, 7):
        again = make_trainer(**config, output_dir=str(tmp_path / f"again-{step}"))
        again.train(resume_from_checkpoint=str(tmp_path / "gbpo" / f"checkpoint-{step}"))
        assert history(again)[:-1] == history(whole)[:-1], step
        for name, value in weights(whole).items():
            assert torch.equal(weights(again)[name], value), (step, name)


def test_completions_of_an_earlier_version_are_generated_again(make, tmp_path):
    """Earlier versions saved the passes of a generation as dicts, which this one cannot run."""
    make("gbpo", "whole", max_steps=2, **CASES["several updates per generation"]).train()
    folder = tmp_path / "whole" / "checkpoint-1"
    state = load_rollout_state(folder, 0, torch.device("cpu"))
    passes = [[{"completion_ids": one.completion_ids} for one in some] for some in state["completions"]]
    torch.save(state | {"completions": passes}, folder / "rollout_state_0.pt")
    again = make("gbpo", "again", max_steps=2, **CASES["several updates per generation"])
    again.train(resume_from_checkpoint=str(folder))
    assert again.state.global_step == 2


def test_only_weights_that_are_not_tied_are_reported_as_missing(make_trainer, tmp_path, monkeypatch):
    """The checkpoint of the tied model holds no `lm_head.weight`. transformers would say so, although nothing lacks."""
    trainer = make_trainer(output_dir=str(tmp_path), max_steps=1, save_strategy="steps", save_steps=1)
    trainer.train()
    said, file = [], tmp_path / "checkpoint-1" / "model.safetensors"
    monkeypatch.setattr(transformers.trainer.logger, "warning", lambda message, *_, **__: said.append(message))
    weights = load_file(file)
    assert "lm_head.weight" not in weights
    trainer._load_from_checkpoint(str(file.parent))
    assert said == []
    save_file({name: weights[name] for name in weights if name != "model.norm.weight"}, file, {"format": "pt"})
    trainer._load_from_checkpoint(str(file.parent))
    assert said == ["There were missing keys in the checkpoint model loaded: ['model.norm.weight']."]
    del weights["model.embed_tokens.weight"]
    save_file(weights, file, {"format": "pt"})
    trainer._load_from_checkpoint(str(file.parent))
    assert "lm_head.weight" in said[1] and "model.embed_tokens.weight" in said[1]
