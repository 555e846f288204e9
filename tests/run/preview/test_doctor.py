"""`python -m gbpo.doctor`: exit statuses, missing parts of a recipe, and probes that hang or crash."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from gbpo.run.preview import doctor
from gbpo.run.preview.device import Device
from templates import NO_SYSTEM

TINY = str(Path(__file__).parents[3] / "recipes" / "tiny_math.yaml")


@pytest.fixture(autouse=True)
def without_slow_probes(monkeypatch):
    """Replaces probes that start processes, which have tests of their own."""
    monkeypatch.setattr(doctor, "sandbox", lambda: [(doctor.OK, "backend", "skipped")])
    monkeypatch.setattr(doctor, "engines", lambda: [(doctor.OPTIONAL, "vllm", "skipped")])


def run(capsys, *argv):
    with pytest.raises(SystemExit) as stop:
        doctor.main(list(argv))
    return stop.value.code, capsys.readouterr()


def test_this_machine(capsys):
    status, printed = run(capsys)
    assert status == 0, printed.out
    for words in ("packages", "torch", "tested with", "CPU", "free in", "HF_HUB_OFFLINE is set", "Nothing is missing."):
        assert words in printed.out


def test_a_recipe_that_can_run(capsys, random_model):
    status, printed = run(capsys, TINY, "--model_name_or_path", random_model)
    assert status == 0, printed.out
    assert "arithmetic, 2,048 prompts" in printed.out and "estimated peak" in printed.out


def test_missing_parts_of_a_recipe(capsys):
    status, printed = run(capsys, TINY, "--model_name_or_path", "nobody/nothing", "--dataset_name", "nowhere.jsonl")
    assert status == 1
    lines = [line for line in printed.out.splitlines() if "MISSING" in line]
    assert ["nowhere.jsonl" in lines[0], "nobody/nothing" in lines[1]] == [True, True]
    assert "Something is missing" in printed.out


def test_too_little_memory(capsys, random_model, monkeypatch):
    monkeypatch.setattr("gbpo.run.preview.device.device_here", lambda recipe: Device("this machine", 2**20))
    status, printed = run(capsys, TINY, "--model_name_or_path", random_model)
    assert status == 1 and "MISSING memory" in printed.out


def test_prompts_that_the_chat_template_refuses(capsys, random_model, tmp_path):
    (tmp_path / "strict.jinja").write_text(NO_SYSTEM)
    flags = ["--chat_template_path", str(tmp_path / "strict.jinja"), "--system_prompt", "Be brief."]
    status, printed = run(capsys, TINY, "--model_name_or_path", random_model, *flags)
    (line,) = [line for line in printed.out.splitlines() if "MISSING" in line]
    assert status == 1 and line.split()[:2] == ["MISSING", "prompts"] and "system_prompt='Be brief.'" in line


@pytest.mark.parametrize("argv", [["nowhere.yaml"], [TINY, "--epsilon", "2"]], ids=str)
def test_bad_input(capsys, argv):
    status, printed = run(capsys, *argv)
    assert status == 2
    assert printed.err.startswith("gbpo doctor: error: ") and printed.err.count("\n") == 1


def test_a_package_out_of_range(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "requires", lambda name: ["torch>=99", "no-such-package>=1", 'vllm<0; extra == "vllm"'])
    marks = {name: (mark, found) for mark, name, found in doctor.packages()}
    assert marks["torch"][0] == doctor.MISSING and "OUT OF RANGE" in marks["torch"][1]
    assert marks["no-such-package"][0] == doctor.MISSING and "not installed" in marks["no-such-package"][1]
    assert marks["vllm"][0] == doctor.OPTIONAL


def test_an_error_in_a_probe_is_reported(capsys, monkeypatch):
    def broken():
        raise RuntimeError("driver gone")

    monkeypatch.setattr(doctor, "devices", broken)
    status, printed = run(capsys)
    assert status == 1 and "RuntimeError: driver gone" in printed.out


def hang():
    time.sleep(600)


def abort():
    import os

    os.abort()


def test_a_probe_that_hangs_is_ended():
    start = time.monotonic()
    assert doctor._in_process(hang, seconds=1) == "no answer within 1 s"
    assert time.monotonic() - start < 60


@pytest.mark.slow
def test_a_probe_that_aborts_is_reported():
    assert doctor._in_process(abort).startswith("its process ended with")


def test_an_unreachable_hub(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    ((mark, name, reason),) = doctor.hub()
    assert (mark, name) == (doctor.OPTIONAL, "unreachable") and "refused" in reason


def test_the_installed_command(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "gbpo.doctor", "nowhere.yaml"], cwd=tmp_path, capture_output=True, text=True, timeout=360
    )
    assert done.returncode == 2 and "nowhere.yaml" in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
