"""What a resumed run says about its checkpoint, and about the fields that differ from those of the checkpoint."""

from pathlib import Path

import pytest

from gbpo.run.output.folder import changes, choose, write_config
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
