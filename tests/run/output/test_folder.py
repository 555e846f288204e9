"""What a resumed run says about its checkpoint, and about the fields that differ from those of the checkpoint."""

import json
from pathlib import Path

import pytest

from gbpo.run.output.folder import (
    changes,
    choose,
    config_of,
    last_checkpoint,
    set_aside_later_checkpoints,
    step_of,
    write_config,
)
from gbpo.run.recipe.parsing import parse

TINY = str(Path(__file__).parents[3] / "recipes" / "tiny_math.yaml")


def saved(run, *flags):
    """A recipe that resumes the run, whose checkpoint-2 was saved with these flags."""
    write_config(run, parse([TINY, *flags]), 0)
    (run / "checkpoint-2").mkdir(exist_ok=True)
    (run / "checkpoint-2" / "trainer_state.json").write_text("{}")
    return [TINY, "--output_dir", str(run), "--resume_from_checkpoint", "auto"]


def test_a_resume_names_the_fields_that_changed(tmp_path):
    again = saved(tmp_path, "--output_dir", "elsewhere", "--learning_rate", "1e-3", "--seed", "3")
    flags = ["--learning_rate", "0.001", "--algorithm", "grpo", "--seed", "4"]
    checkpoint = str(tmp_path / "checkpoint-2")
    assert changes(checkpoint, parse([*again, *flags])) == ["algorithm: gbpo -> grpo", "seed: 3 -> 4"]
    assert changes(checkpoint, parse([*again, "--learning_rate", "0.001", "--seed", "3"])) == []


def test_a_checkpoint_of_other_weights_is_refused(tmp_path):
    again = saved(tmp_path)
    assert choose(parse(again)) == tmp_path
    with pytest.raises(ValueError, match=r"use_peft=True, but .*checkpoint-2' was saved with False: the weights"):
        choose(parse([*again, "--use_peft", "true"]))
    again = saved(tmp_path, "--use_peft", "true", "--lora_r", "4")
    with pytest.raises(ValueError, match=r"lora_r=8, but .* was saved with 4: the weights .* Write lora_r=4"):
        choose(parse([*again, "--use_peft", "true", "--lora_r", "8"]))


@pytest.mark.parametrize("content", [b"", b"{", b"\xff"])
def test_a_damaged_configuration_is_named(tmp_path, content):
    again = saved(tmp_path)
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"config\.json is damaged \(.*checkpoint-2' fits.* remove it to continue"):
        choose(parse(again))
    (tmp_path / "config.json").unlink()
    assert choose(parse(again)) == tmp_path


def test_a_resume_from_a_wrong_name_names_the_last_checkpoint(tmp_path):
    with pytest.raises(
        ValueError, match=r"resume_from_checkpoint='latest' is not a checkpoint.*true for \S+checkpoint-2,"
    ):
        choose(parse([*saved(tmp_path), "--resume_from_checkpoint", "latest"]))


def test_a_folder_of_a_run_is_refused_and_can_be_continued_only_with_a_checkpoint(tmp_path):
    again = saved(tmp_path)[:-2]
    with pytest.raises(ValueError, match=r"would overwrite.*continue that run with --resume_from_checkpoint true\."):
        choose(parse(again))
    (tmp_path / "checkpoint-2" / "trainer_state.json").unlink()
    (tmp_path / "checkpoint-2").rmdir()
    with pytest.raises(ValueError, match=r"would overwrite\. Give another folder\.$"):
        choose(parse(again))


def test_a_run_that_started_from_another_run_and_has_no_checkpoint_goes_on_from_there(tmp_path):
    """Otherwise `auto` would start it again from step 0."""
    saved(tmp_path / "old")
    checkpoint = str(tmp_path / "old" / "checkpoint-2") + "/"
    new = tmp_path / "new"
    flags = [TINY, "--output_dir", str(new)]
    first = parse([*flags, "--resume_from_checkpoint", checkpoint])
    assert choose(first) == new
    write_config(new, first, 2)
    again = parse([*flags, "--resume_from_checkpoint", "auto"])
    assert choose(again) == new and last_checkpoint(new, "auto") == checkpoint
    (new / "checkpoint-4").mkdir()
    assert choose(again) == new and last_checkpoint(new, "auto") == str(new / "checkpoint-4")
    (new / "checkpoint-4").rmdir()
    (new / "model").mkdir()
    with pytest.raises(ValueError, match=r"already holds .*model, which .* overwrite\. Give another folder"):
        choose(again)


def test_the_step_does_not_depend_on_the_name_of_the_checkpoint(tmp_path):
    (tmp_path / "trainer_state.json").write_text('{"global_step": 7}')
    assert step_of(str(tmp_path)) == step_of(f"{tmp_path}/") == 7


def test_checkpoints_of_later_steps_are_set_aside(tmp_path):
    for step in (2, 4, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
    aside = set_aside_later_checkpoints(tmp_path, 2)
    assert sorted(path.name for path in aside.iterdir()) == ["checkpoint-10", "checkpoint-4"]
    assert last_checkpoint(tmp_path, "auto") == str(tmp_path / "checkpoint-2")
    assert set_aside_later_checkpoints(tmp_path, 2) is None


def test_the_settings_of_a_checkpoint_are_those_of_the_last_start_before_it(tmp_path):
    """The run resumed at step 6 and later again at step 4."""
    starts = {"config": "08:00:00", "config-from-6": "09:00:00", "config-from-4": "10:00:00"}
    for name, hour in starts.items():
        start = {"run": {}, "training": {}, "started": f"2026-01-01 {hour}"}
        (tmp_path / f"{name}.json").write_text(json.dumps(start))
    found = {step: config_of(tmp_path / f"checkpoint-{step}").stem for step in (4, 5, 8)}
    assert found == {4: "config", 5: "config-from-4", 8: "config-from-4"}
    assert config_of(tmp_path / "model").stem == "config-from-4"
