"""The line of a logging step that a person reads."""

from types import SimpleNamespace

from gbpo.run.output.progress import MetricsFile


def test_the_line_says_what_is_outside(tmp_path, capsys):
    state = SimpleNamespace(is_world_process_zero=True, global_step=20, max_steps=600)
    metrics = MetricsFile(tmp_path)
    metrics.on_train_begin(None, state, None)
    metrics.on_log(None, state, None, logs={"loss": 0.01, "reward": 0.5, "gbpo/outside_bounds": 0.073})
    line = capsys.readouterr().out
    assert line == "step 20/600  reward 0.500  loss +0.0100  7.3% of ratios outside the bounds\n"
