"""The command `python -m gbpo.run.rollouts`: what it writes, and its errors."""

import pytest

from gbpo.run.rollouts.command import main


def test_the_page_is_written_beside_the_files(run, capsys, tmp_path):
    main([str(run), "--output", str(tmp_path / "page.html")])
    assert capsys.readouterr().out == f"{tmp_path / 'page.html'}\n"
    assert "window.hacked" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{run}", "--step", "13"], "step=13 has no completions in '{run}/rollouts'. Give a step from 1 to 12."),
        (["{run}", "--replay", "--step", "99"], "step=99 has no completions in '{run}/rollouts'. Give a step"),
        (["{run}", "--replay", "--step", "2"], "'{run}' has no config.json of a run, which names the rewards."),
        (["{run}", "--replay"], "--replay needs a step: it grades the completions of one step."),
        (["{run}", "--replay", "--step", "1", "--output", "x"], "--output is the page, but --replay writes no page."),
        (["{run}", "--max", "0"], "--max 0 would leave no generation on the page. Write a positive number."),
        (["{run}/../none"], "none' is not the output folder of a run, so there is nothing to show. Give a folder such"),
        (["{run}/rollouts"], "rollouts' is not the output folder of a run, so there is nothing to show."),
        (["{run}", "--output", "{run}/none/page.html"], "cannot be written (No such file or directory)."),
        (["{run}", "--pages"], "unknown option --pages. Did you mean --"),
    ],
)
def test_errors_are_one_line(run, capsys, words, message):
    with pytest.raises(SystemExit) as stop:
        main([word.format(run=run) for word in words])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.startswith("gbpo rollouts: error: ") and error.count("\n") == 1
    assert message.format(run=run) in error


def test_a_run_without_completions_is_told_how_to_log_them(tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(SystemExit):
        main([str(tmp_path)])
    assert "has no completions, so there is nothing to show. Run the recipe with log_comp" in capsys.readouterr().err
