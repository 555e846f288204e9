"""Tests that start processes are marked as slow, whichever function or fixture starts them."""

import subprocess

import pytest

import processes


def runs_a_command():
    return processes.run("true")


@pytest.fixture
def launcher():
    def launch():
        return subprocess.run(["true"], check=True)

    return launch


def is_slow(request):
    return request.node.get_closest_marker("slow") is not None


def test_a_process_of_a_function_that_is_called(request):
    assert is_slow(request), runs_a_command


def test_a_process_of_a_fixture(request, launcher):
    assert is_slow(request)


def test_a_hostile_input(request):
    assert is_slow(request)


def test_other_tests_are_not_slow(request):
    assert not is_slow(request)


@pytest.mark.sweep
@pytest.mark.parametrize("case", [1, 2, 3])
def test_the_cases_of_a_sweep_after_the_first(request, case):
    assert is_slow(request) == (case > 1)
