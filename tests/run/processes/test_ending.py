"""Killed runs: they leave a report, and the command in it continues them to the result of an uninterrupted run."""

import errno
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

import processes
from gbpo.run.processes import ending, watcher
from gbpo.shared.stopping import TrainingStopped

ROOT = Path(__file__).parents[3]
TINY = ROOT / "recipes" / "tiny_math.yaml"
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
# two updates per generation; checkpoints and logs at other intervals
FLAGS = [
    *("--max_steps", 22, "--save_strategy", "steps", "--save_steps", 3, "--logging_steps", 2),
    *("--per_device_train_batch_size", 16, "--reward_funcs", "own.ord_mod_3"),
]
# an untrained model is never correct, so a reward is needed that differs between its completions
OWN = """
def ord_mod_3(completions, **kwargs):
    return [float(sum(map(ord, c[0]["content"])) % 3) for c in completions]
"""
MEASURED = {"step_time", "elapsed", "peak_memory_gb"}  # these depend on the machine


def read_rows(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {key: value for key, value in row.items() if key not in MEASURED and not key.startswith("time/")}
        for row in rows
    ]


def weights(folder):
    return load_file(folder / "model" / "model.safetensors")


def wait_for(happened, process, log, seconds=600):
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline and process.poll() is None, log.read_text()[-3000:]
        time.sleep(0.02)


def kill_run(command, folder, cwd, victim):
    """Start the command, kill the process `victim(process)` after the first checkpoint, and wait for the end."""
    log = cwd / "killed.log"
    with log.open("w") as file:
        process = subprocess.Popen(command, cwd=cwd, stdout=file, stderr=file)
        try:
            wait_for((folder / "checkpoint-6" / "trainer_state.json").exists, process, log)
            os.kill(victim(process), signal.SIGKILL)
            start = time.monotonic()
            process.wait(300)
        finally:
            process.kill()
    wait_for((folder / "report.txt").exists, subprocess.Popen(["sleep", "30"]), log, seconds=20)
    return time.monotonic() - start, log.read_text()


@pytest.mark.parametrize("ahead", [0, 2])
@pytest.mark.parametrize("ranks", [1, 2])
def test_the_reported_command_gives_the_result_of_an_uninterrupted_run(launch, boxing_model, tmp_path, ranks, ahead):
    launcher = (sys.executable,) if ranks == 1 else TORCHRUN
    (tmp_path / "own.py").write_text(OWN)
    flags = ["--model_name_or_path", boxing_model, *FLAGS, "--generate_ahead", ahead]
    script = ROOT / "launch" / "gbpo.py"
    processes.run_script(script, TINY, *flags, "--output_dir", "whole", ranks=ranks, cwd=tmp_path)
    assert (tmp_path / "whole" / "report.txt").read_text().strip().endswith("last checkpoint: whole/checkpoint-22")

    folder = tmp_path / "run"
    command = [*launcher, str(script), str(TINY), *map(str, flags), "--output_dir", "run"]

    def victim(process):
        if ranks == 1:
            return process.pid
        (beat,) = (folder / watcher.FOLDER).glob("*/1.beat")
        name = json.loads(beat.read_text())["name"]
        return int(re.search(r"process (\d+)", name)[1])

    seconds, output = kill_run(command, folder, tmp_path, victim)
    assert seconds < 60
    assert not (folder / "model").exists()
    (report,) = (folder / "report.txt").read_text().splitlines()
    last = max(int(path.name.split("-")[1]) for path in folder.glob("checkpoint-*"))
    step = int(re.search(r"ended at step (\d+)", report)[1])
    assert last <= step <= last + 4
    assert re.search(r": rank 1 \(.+, process \d+\): killed; " if ranks == 2 else r": killed; ", report)
    assert f"last checkpoint: run/checkpoint-{last}; " in report
    assert report.split(" ", 2)[2] in output  # printed as well

    if ranks == 1:
        refused = launch(TINY, *flags, "--output_dir", "run")
        assert refused.returncode == 2 and "--resume_from_checkpoint true" in refused.stderr

    go_on = shlex.split(report.partition("go on with: ")[2])
    done = subprocess.run(go_on, cwd=tmp_path, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert read_rows(folder) == read_rows(tmp_path / "whole")
    assert len(read_rows(folder)) == 11 and sum(row["grad_norm"] > 0 for row in read_rows(folder)) > 3
    expected = weights(tmp_path / "whole")
    for name, value in weights(folder).items():
        assert torch.equal(value, expected[name]), name
    assert not (folder / watcher.FOLDER).exists()
    assert json.loads((folder / "config.json").read_text())["training"]["resume_from_checkpoint"] is None
    assert (folder / f"config-from-{last}.json").is_file()


def test_auto_starts_a_run_without_checkpoints(launch, boxing_model, tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    flags = ["--model_name_or_path", boxing_model, *FLAGS, "--max_steps", 2, "--output_dir", "run"]
    flags += ["--hub_token", "hf_not_to_be_written"]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")  # left by a run that was killed before its first checkpoint
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n')
    done = launch(TINY, *flags, "--save_steps", 2, "--resume_from_checkpoint", "auto")
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(read_rows(tmp_path / "run")) == 1
    again = launch(TINY, *flags, "--save_steps", 2, "--resume_from_checkpoint", "auto", "--max_steps", 4)
    assert again.returncode == 0, again.stderr[-3000:]
    assert [row["step"] for row in read_rows(tmp_path / "run")] == [2, 4]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "The run finished at step 4." in page and "resumed after step 2" in page and "--hub_token HIDDEN" in page
    written = [path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert any(b"HIDDEN" in some for some in written)
    assert not any(b"hf_not_to_be_written" in some for some in written)


# the first call is the trial before the run
FAILS = """
calls = []
def fails(completions, **kwargs):
    calls.append(1)
    if len(calls) > 1:
        raise OSError('grader is down')
    return [0.0] * len(completions)
"""
# a shell that starts the tests in the background lets them ignore interrupts
INTERRUPT = "signal.signal(signal.SIGINT, signal.default_int_handler); signal.raise_signal(signal.SIGINT)"
INTERRUPTED = FAILS.replace("raise OSError('grader is down')", f"import signal; {INTERRUPT}")


def test_the_command_to_continue_can_be_typed_where_the_run_was_started(monkeypatch, tmp_path):
    """With the name of the program if the shell finds it, with its path otherwise."""
    folder, programs = tmp_path / "here", tmp_path / "here" / "env" / "bin"
    programs.mkdir(parents=True)
    (programs / "gbpo").touch(mode=0o755)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    monkeypatch.setattr(sys, "argv", ["x.py", "not", "the", "parent"])
    words = [str(programs / "python"), str(programs / "gbpo"), "train", str(tmp_path / "a b.yaml"), "--output_dir=x"]
    monkeypatch.setattr(sys, "orig_argv", words)
    rest = "train ~/'a b.yaml' --output_dir runs/a --resume_from_checkpoint auto"
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert ending.command_to_continue(folder / "runs" / "a") == f"env/bin/gbpo {rest}"
    monkeypatch.setenv("PATH", str(programs))
    assert ending.command_to_continue(Path("runs/a")) == f"gbpo {rest}"
    monkeypatch.chdir(tmp_path / "here" / "env")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert ending.command_to_continue(Path("a")).startswith("bin/gbpo train ~/")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert ending.command_to_continue(folder).startswith("~/here/env/bin/gbpo train ~/'a b.yaml' --output_dir ~/here ")


def test_an_interrupt_ends_with_the_command_to_continue_and_no_traceback(launch, boxing_model, tmp_path):
    (tmp_path / "my_rewards.py").write_text(INTERRUPTED)
    done = launch(
        TINY, *("--model_name_or_path", boxing_model, "--reward_funcs", "my_rewards.fails", "--output_dir", "run")
    )
    assert done.returncode == 130
    assert "gbpo: ended at step 0: interrupted; last checkpoint: none; go on with: " in done.stderr
    assert "Traceback" not in done.stderr
    assert "%|" not in done.stderr  # a progress bar, which would cut the lines of a file


def test_a_failing_reward_is_the_reported_reason(launch, boxing_model, tmp_path):
    (tmp_path / "my_rewards.py").write_text(FAILS)
    done = launch(
        TINY, *("--model_name_or_path", boxing_model, "--reward_funcs", "my_rewards.fails", "--output_dir", "run")
    )
    assert done.returncode == 1
    assert "gbpo: ended at step 0: OSError: grader is down; last checkpoint: none; go on with: " in done.stderr
    for name in ("report.txt", "report.html"):
        assert "ended at step 0: OSError: grader is down" in (tmp_path / "run" / name).read_text()


def test_a_run_that_stops_itself_gives_the_reason_in_one_line(launch, boxing_model, tmp_path):
    (tmp_path / "my_rewards.py").write_text("def none(completions, **kwargs):\n    return [None] * len(completions)\n")
    done = launch(
        TINY,
        *("--model_name_or_path", boxing_model, "--reward_funcs", "my_rewards.none", "--output_dir", "run"),
        *("--logging_steps", 1, "--per_device_train_batch_size", 16),
    )
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert "gbpo: ended at step 5: No completion was graded in the last 3 logs" in done.stderr


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (TrainingStopped("No signal."), "No signal."),
        (KeyboardInterrupt(), "interrupted"),
        (ValueError("bad\n  row"), "ValueError: bad row"),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
            "the disk is full, free some space before you continue (",
        ),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "the disk is full, free some space"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"), "the disk is full, free"),
    ],
)
def test_reasons_are_one_line(error, why):
    assert ending.reason(error).startswith(why)


# ---------------------------------------------------------------------------------------------------------------------
# the watcher alone, with processes that only sleep
# ---------------------------------------------------------------------------------------------------------------------


def watchers_folder(output):
    return output / watcher.FOLDER / "this_run"


@pytest.fixture
def start_rank(tmp_path):
    """`start_rank(rank, ranks)` returns a sleeping process and its watcher, which has short delays."""
    started = []

    def start(rank, ranks, *, ignores_sigterm=False, silent=60.0):
        ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " if ignores_sigterm else ""
        sleep = f"{ignore}print(1, flush=True); import time; time.sleep(60)"
        sleeper = subprocess.Popen([sys.executable, "-c", sleep], stdout=subprocess.PIPE)
        sleeper.stdout.readline()  # the signal handler is set
        about = {"output": str(tmp_path), "folder": str(watchers_folder(tmp_path)), "rank": rank, "ranks": ranks}
        about |= {"host": "node", "pid": sleeper.pid, "command": "the command"}
        watch = (
            f"import sys, json; sys.path.insert(0, {str(Path(watcher.__file__).parent)!r}); import watcher as w\n"
            f"w.POLL, w.BEAT, w.SETTLE, w.GRACE, w.SILENT, w.PATIENCE = 0.02, 0.05, 0.3, 0.5, {silent}, 2.0\n"
            "w.Watcher(**json.loads(sys.argv[1])).run()"
        )
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE) | {"text": True}
        process = subprocess.Popen([sys.executable, "-c", watch, json.dumps(about)], **pipes)
        started.extend([sleeper, process])
        return sleeper, process

    yield start
    for process in started:
        process.kill()
        process.wait()


def say(process, *messages):
    for message in messages:
        process.stdin.write(json.dumps(message) + "\n")
    process.stdin.flush()


def end(process, *messages):
    say(process, *messages)
    process.stdin.close()
    assert process.wait(20) == 0


def report(folder):
    return [line.split(" ", 2)[2] for line in (folder / "report.txt").read_text().splitlines()]


def test_watcher_reports_a_finished_run(start_rank, tmp_path):
    (tmp_path / "checkpoint-40").mkdir()
    (tmp_path / "checkpoint-9").mkdir()
    end(start_rank(0, 1)[1], {"step": 50}, {"ended": None})
    assert report(tmp_path) == [f"ended at step 50: finished; last checkpoint: {tmp_path}/checkpoint-40"]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_watcher_reports_a_killed_run(start_rank, tmp_path):
    process = start_rank(0, 1)[1]
    end(process, {"step": 1}, {"step": 2})
    assert report(tmp_path) == ["ended at step 2: killed; last checkpoint: none; go on with: the command"]
    assert "gbpo: ended at step 2: killed" in process.stderr.read()


@pytest.mark.parametrize("terminal", [False, True])
def test_the_end_is_a_line_of_its_own(tmp_path, capsys, monkeypatch, terminal):
    """In a terminal, a run that was killed leaves its progress bar without a new line."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    about = {"output": str(tmp_path), "folder": str(tmp_path / "w"), "rank": 0, "ranks": 1, "host": "a", "pid": 7}
    watcher.Watcher(**about, command="the command")._report("killed")
    assert capsys.readouterr().err.startswith("\ngbpo: ended" if terminal else "gbpo: ended")


@pytest.mark.parametrize("ignores_sigterm", [False, True])
def test_a_rank_that_waits_for_a_dead_one_is_ended(start_rank, tmp_path, ignores_sigterm):
    """A rank that waits for the GPU does not handle SIGTERM."""
    waiting, first = start_rank(0, 3, ignores_sigterm=ignores_sigterm)
    other, third = start_rank(2, 3)
    _, second = start_rank(1, 3)
    say(second, {"step": 7})
    second.stdin.close()  # killed
    assert waiting.wait(20) == -(signal.SIGKILL if ignores_sigterm else signal.SIGTERM)
    first.stdin.close()
    other.wait(20)
    third.stdin.close()
    assert [process.wait(20) for process in (first, second, third)] == [0, 0, 0]
    (line,) = report(tmp_path)
    assert re.fullmatch(r"ended at step 0: rank 1 \(node, process \d+\): killed; last checkpoint: none; .*", line)
    assert "ends because of rank 1 (node" in first.stderr.read()


def test_the_first_reason_is_reported(start_rank, tmp_path):
    """The error of rank 1 is reported, not the broken connection that rank 0 notices afterwards."""
    (_, first), (_, second) = start_rank(0, 2), start_rank(1, 2)
    say(second, {"ended": "ValueError: bad row"})
    wait_for((watchers_folder(tmp_path) / "1.ended").exists, second, tmp_path / "report.txt")
    end(first, {"ended": "RuntimeError: connection closed by peer"})
    (line,) = report(tmp_path)
    assert "rank 1 (node" in line and "ValueError: bad row" in line and "connection" not in line


def test_a_killed_rank_is_reported_instead_of_a_broken_connection_just_before(start_rank, tmp_path):
    """A rank notices the broken connection at once. The watcher of the killed rank may be a little later."""
    (_, first), (_, second) = start_rank(0, 2), start_rank(1, 2)
    say(first, {"ended": "RuntimeError: connection reset by peer"})
    wait_for((watchers_folder(tmp_path) / "0.ended").exists, first, tmp_path / "report.txt")
    end(second)
    assert first.wait(20) == 0
    (line,) = report(tmp_path)
    assert re.search(r"rank 1 \(node, process \d+\): killed; ", line)


def test_a_rank_that_fails_well_before_another_is_killed_is_reported(start_rank, tmp_path):
    (_, first), (_, second) = start_rank(0, 2), start_rank(1, 2)
    end(second, {"ended": "ValueError: bad row"})  # its watcher reports, because rank 0 does not end in time
    end(first)
    (line,) = report(tmp_path)
    assert "rank 1 (node" in line and "ValueError: bad row" in line


def test_a_lost_machine_is_noticed_and_another_rank_reports(start_rank, tmp_path):
    """The watcher of rank 0 vanishes: its beat stops, so rank 1 is ended and reports."""
    (_, first), (waiting, second) = start_rank(0, 2, silent=1.0), start_rank(1, 2, silent=1.0)
    wait_for((watchers_folder(tmp_path) / "0.beat").exists, first, tmp_path / "report.txt")
    wait_for((watchers_folder(tmp_path) / "1.beat").exists, second, tmp_path / "report.txt")
    first.kill()
    assert waiting.wait(20) == -signal.SIGTERM
    end(second)
    (line,) = report(tmp_path)
    assert "rank 0 (node" in line and "no sign of life" in line


def test_a_rank_that_finishes_later_is_not_ended(start_rank, tmp_path):
    (_, first), (waiting, second) = start_rank(0, 2, silent=1.0), start_rank(1, 2, silent=1.0)
    wait_for((watchers_folder(tmp_path) / "1.beat").exists, second, tmp_path / "report.txt")
    end(first, {"step": 5}, {"ended": None})
    time.sleep(1.5)  # longer than a rank may be silent
    assert waiting.poll() is None
    end(second, {"ended": None})
    assert report(tmp_path) == ["ended at step 5: finished; last checkpoint: none"]
    assert not (tmp_path / watcher.FOLDER).exists()


def test_a_lost_machine_with_several_ranks_is_reported_once(start_rank, tmp_path):
    """Ranks 0 and 1 vanish with their watchers. Ranks 2 and 3 end, and one of them reports."""
    started = [start_rank(rank, 4, silent=1.0) for rank in range(4)]
    for rank, (_, process) in enumerate(started):
        wait_for((watchers_folder(tmp_path) / f"{rank}.beat").exists, process, tmp_path / "report.txt")
    for _, process in started[:2]:
        process.kill()
    for waiting, process in started[2:]:
        assert waiting.wait(20) == -signal.SIGTERM
        process.stdin.close()
    assert [process.wait(20) for _, process in started[2:]] == [0, 0]
    (line,) = report(tmp_path)
    assert "rank 1 (node" in line and "no sign of life" in line


def test_if_the_watcher_that_should_report_is_killed_another_reports(start_rank, tmp_path):
    (_, first), (_, second) = start_rank(0, 2), start_rank(1, 2)
    wait_for((watchers_folder(tmp_path) / "0.beat").exists, first, tmp_path / "report.txt")
    say(second, {"ended": "ValueError: bad row"})
    wait_for((watchers_folder(tmp_path) / "1.ended").exists, second, tmp_path / "report.txt")
    first.kill()
    end(second)
    (line,) = report(tmp_path)
    assert "rank 1 (node" in line and "ValueError: bad row" in line


def test_a_rank_that_failed_may_exit_before_rank_0_reports(start_rank, tmp_path):
    """Otherwise rank 0 would wait for its connections to close."""
    (_, first), (_, second) = start_rank(0, 2), start_rank(1, 2)
    say(second, {"ended": "ValueError: bad row"})
    start = time.monotonic()
    assert second.stdout.read() == ""  # closed
    assert time.monotonic() - start < 1.5 and second.poll() is None
    end(first, {"ended": "RuntimeError: connection closed by peer"})
    end(second)
    (line,) = report(tmp_path)
    assert "ValueError: bad row" in line


def test_a_watcher_without_its_rank_is_noticed_behind_ranks_that_finished(start_rank, tmp_path):
    """Rank 2 watches rank 1. Once rank 1 has finished it watches rank 0, and notices that rank 0 is lost."""
    (_, first), (_, second), (waiting, third) = (start_rank(rank, 3, silent=1.0) for rank in range(3))
    for rank, process in enumerate((first, second, third)):
        wait_for((watchers_folder(tmp_path) / f"{rank}.beat").exists, process, tmp_path / "report.txt")
    end(second, {"ended": None})
    first.kill()
    assert waiting.wait(20) == -signal.SIGTERM
    end(third)
    (line,) = report(tmp_path)
    assert "rank 0 (node" in line and "no sign of life" in line


READING = {"open", "os.listdir", "os.scandir"}
_counting: list[list[str]] = []  # an audit hook cannot be removed: it counts into these lists


def _count(event, arguments):
    if _counting and event in READING and watcher.FOLDER in str(arguments[0]):
        flags = arguments[2] if event == "open" else os.O_RDONLY
        if flags & os.O_ACCMODE == os.O_RDONLY:
            _counting[-1].append(event)


def test_reads_per_second_grow_linearly_with_the_ranks(tmp_path, monkeypatch):
    """Each of 64 watchers lists the folder twice per second and reads one beat every five seconds."""
    ranks, seconds = 64, 20
    now = 1000.0
    monkeypatch.setattr(watcher.time, "monotonic", lambda: now)
    about = {"output": str(tmp_path), "folder": str(watchers_folder(tmp_path)), "host": "node", "command": ""}
    watchers = [watcher.Watcher(**about, rank=rank, ranks=ranks, pid=0) for rank in range(ranks)]
    assert [one.look() for one in watchers] == [None] * ranks
    sys.addaudithook(_count)
    reads: list[str] = []
    _counting.append(reads)
    try:
        for _ in range(int(seconds / watcher.POLL)):
            now += watcher.POLL
            assert [one.look() for one in watchers] == [None] * ranks
    finally:
        _counting.clear()
    assert 0 < reads.count("open") / seconds <= ranks / watcher.BEAT + 1
    assert len(reads) / seconds <= 2.5 * ranks
    # the bound also holds if every other rank has finished
    for one in watchers[::2]:
        one._leave()
    _counting.append(reads := [])
    try:
        for _ in range(int(seconds / watcher.POLL)):
            now += watcher.POLL
            assert [one.look() for one in watchers[1::2]] == [None] * (ranks // 2)
    finally:
        _counting.clear()
    assert reads.count("open") / seconds <= ranks / watcher.BEAT + 1


def test_no_file_beside_the_watcher_shadows_a_standard_module(tmp_path, monkeypatch):
    copied = tmp_path / "package" / "watcher.py"
    copied.parent.mkdir()
    shutil.copyfile(watcher.__file__, copied)
    for name in ("json", "time", "re"):
        (copied.parent / f"{name}.py").write_text("raise ImportError('shadowed')\n")
    monkeypatch.setattr(watcher, "__file__", str(copied))
    with ending.watched(tmp_path / "run"):
        pass
    assert report(tmp_path / "run") == ["ended at step 0: finished; last checkpoint: none"]


def test_a_resumed_run_that_takes_no_step_ends_at_the_step_of_its_checkpoint(tmp_path):
    with ending.watched(tmp_path / "run") as step_report:
        step_report.on_train_begin(None, SimpleNamespace(global_step=3), None)
    assert report(tmp_path / "run") == ["ended at step 3: finished; last checkpoint: none"]
