"""What is read of the starts and ends of a run."""

import fcntl

import pytest

from gbpo.run.report.story import End, read

FINISHED = "2026-11-01 11:00:00 ended at step 40: finished; last checkpoint: runs/mine/checkpoint-40"
KILLED = (
    "2026-11-01 10:30:00 ended at step 14: rank 0 (a, process 7): killed; last checkpoint: runs/mine/checkpoint-10; "
    "go on with: /env/python /env/gbpo train mine.yaml --output_dir runs/mine --resume_from_checkpoint auto"
)


def test_a_finished_run(make_run):
    story = read(make_run(ends=[FINISHED]))
    assert story.end == End(40, "finished", "2026-11-01 11:00:00")
    assert not story.running


def test_a_killed_run_has_the_command_to_go_on(make_run):
    run = make_run(ends=[KILLED])
    for step in (2, 10):
        (run / f"checkpoint-{step}").mkdir()
    story = read(run)
    assert story.end == End(14, "rank 0 (a, process 7): killed", "2026-11-01 10:30:00")
    assert story.checkpoint == "checkpoint-10"  # 10 comes after 2
    assert story.command == "gbpo train mine.yaml --seed 1 --output_dir runs/mine --resume_from_checkpoint auto"


def test_the_end_before_a_resume_is_not_the_end_of_the_resumed_run(make_run, resume):
    run = make_run(ends=[KILLED])
    resume(run, 10, started="2026-11-01 10:45:00", command_to_continue="gbpo train other.yaml")
    story = read(run)
    assert story.end is None and len(story.ends) == 1
    assert [start.step for start in story.starts] == [0, 10]
    assert story.command == "gbpo train other.yaml"
    assert read(run, End(20, "interrupted")).end == End(20, "interrupted")


def test_an_earlier_checkpoint_can_be_resumed_later(make_run, resume):
    """The start with the latest time is in force, not the one with the highest step."""
    run = make_run()
    resume(run, 20, started="2026-11-01 11:00:00")
    resume(run, 10, started="2026-11-01 12:00:00")
    assert [start.step for start in read(run).starts] == [0, 20, 10]


def test_a_run_goes_on_while_its_folder_is_locked(make_run):
    run = make_run(ends=[FINISHED])
    with (run / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        story = read(run)
        assert story.running and story.end is None
    assert not read(run).running


@pytest.mark.parametrize("content", [None, "", "{}", '{"model_type": "qwen2"}', "[]"])
def test_another_folder_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match="is neither the output folder of a run nor of a comparison"):
        read(tmp_path)
