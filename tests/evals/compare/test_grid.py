"""Algorithms and grids of a comparison, and the comparisons that are refused."""

from pathlib import Path

import pytest

from evals.compare.grid import grid_points, read_grid
from evals.compare.point import Algorithm, describe
from evals.compare.same_steps import shared_run_notes
from gbpo.trainer.passes.speedups import requested_speedups

TINY = Path(__file__).parents[3] / "recipes" / "tiny_math.yaml"
ONE_UPDATE = ["--per_device_train_batch_size=256", "--steps_per_generation=1", "--num_iterations=1"]


def test_an_algorithm_has_a_base_and_fields():
    algorithm = Algorithm.parse("gbpo:target_baseline=exact,overshoot-slope=0.2")
    assert algorithm.base == "gbpo"
    assert algorithm.fields == {"target_baseline": "exact", "overshoot_slope": "0.2"}
    assert Algorithm.parse("grpo").fields == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ppo", ["ppo", "gbpo, grpo"]),
        ("gbpo:exact", ["exact", "field=value"]),
        ("gbpo:target_baseline=", ["target_baseline", "field=value"]),
        ("grpo:target_baseline=exact", ["target_baseline", "does not read"]),
    ],
)
def test_an_invalid_algorithm_is_refused(text, words):
    with pytest.raises(ValueError) as error:
        Algorithm.parse(text)
    assert all(word in str(error.value) for word in words)


def test_a_grid_can_have_numbers_and_texts():
    grid = read_grid(["epsilon=0.2,0.3", "num_iterations=1,4", "lr_scheduler_type=constant,cosine"])
    assert grid == {
        "epsilon": [0.2, 0.3],
        "num_iterations": [1, 4],
        "lr_scheduler_type": ["constant", "cosine"],
    }


@pytest.mark.parametrize("texts", [["epsilon"], ["epsilon=0.2,0.2"], ["epsilon=0.2", "epsilon=0.3"], ["=1"]])
def test_an_invalid_grid_is_refused(texts):
    with pytest.raises(ValueError, match="--grid"):
        read_grid(texts)


def test_two_fields_in_one_item_of_the_grid_are_refused():
    with pytest.raises(ValueError, match=r"Separate fields by a space: --grid epsilon=0\.2,0\.3 beta=0\.1,0\.2\.$"):
        read_grid(["epsilon=0.2,0.3,beta=0.1,0.2"])


def test_every_algorithm_is_run_at_every_grid_point():
    found = grid_points(TINY, ["grpo", "gbpo:target_baseline=exact"], {"epsilon": [0.2, 0.3]}, ["--max_steps=7"])
    assert [(p.algorithm.name, p.setting["epsilon"]) for p in found] == [
        ("grpo", 0.2),
        ("gbpo:target_baseline=exact", 0.2),
        ("grpo", 0.3),
        ("gbpo:target_baseline=exact", 0.3),
    ]
    assert [p.recipe.training.epsilon for p in found] == [0.2, 0.2, 0.3, 0.3]
    assert found[1].recipe.training.target_baseline == "exact"
    assert all(p.recipe.training.max_steps == 7 for p in found)
    assert len({p.folder(seed) for p in found for seed in (0, 1)}) == 8
    assert describe(found[0].setting) == "epsilon=0.2" and describe({}) == "all"


@pytest.mark.parametrize(
    ("algorithms", "grid", "flags", "words"),
    [
        (["grpo", "grpo"], {}, [], ["grpo", "twice"]),
        (["grpo", "gbpo:num_generations=16"], {}, [], ["num_generations", "could not be attributed to the algorithms"]),
        (["grpo", "gbpo:max_steps=5"], {}, [], ["max_steps"]),
        (["grpo", "gbpo:dataset_name=programs"], {}, [], ["dataset_name"]),
        (["grpo", "gbpo:temperature=0.5"], {}, [], ["temperature"]),
        (["grpo", "gbpo:difficulty={}"], {}, ["--difficulty", "{low: 0.1, high: 0.9}"], ["difficulty"]),
        (["grpo", "gbpo:epsilon=0.3"], {"epsilon": [0.1]}, [], ["epsilon", "gbpo:epsilon=0.3"]),
        (["grpo", "gbpo"], {"epsilon": [0.1]}, ["--epsilon", "0.3"], ["epsilon", "command line"]),
        (["grpo", "gbpo"], {"epsilom": [0.1]}, [], ["epsilom", "epsilon"]),
        (["grpo", "gbpo:target_baseline=middle"], {}, [], ["gbpo:target_baseline=middle", "middle"]),
    ],
)
def test_algorithms_that_are_not_comparable_are_refused(algorithms, grid, flags, words):
    with pytest.raises(ValueError) as error:
        grid_points(TINY, algorithms, grid, flags)
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize(
    ("algorithms", "flags"),
    [
        (
            ["grpo", "gbpo:target_baseline=exact"],
            ONE_UPDATE,
        ),  # with binary rewards, both follow the sign of the advantage
        (["grpo", "gbpo:target_baseline=mean"], ONE_UPDATE),
        (["gbpo", "gbpo:target_temperature=1"], ONE_UPDATE),  # the sign of the gradient does not depend on it
        (["gbpo", "gbpo:epsilon=0.1"], ONE_UPDATE),
        (["gbpo", "gbpo:bound_exponent=1"], ONE_UPDATE),
        (["grpo", "gbpo:target_baseline=mean,target_temperature=0,overshoot_slope=0"], []),  # has the gradient of GRPO
        (["gbpo", "gbpo:target_baseline=median"], []),
    ],
)
def test_a_comparison_without_any_difference_is_refused(algorithms, flags):
    with pytest.raises(ValueError, match="cannot show a difference"):
        shared_run_notes(grid_points(TINY, algorithms, {}, flags))


@pytest.mark.parametrize(
    ("algorithms", "flags"),
    [
        (["grpo", "gbpo"], ONE_UPDATE),  # only GRPO moves completions whose reward equals the median
        (["grpo", "gbpo:target_baseline=exact"], []),
        (["grpo", "gbpo:target_baseline=exact"], [*ONE_UPDATE, "--reward_funcs", "exact_match", "format"]),
        (
            ["gbpo", "gbpo:epsilon_high=0.4"],
            ONE_UPDATE,
        ),  # changes the target of completions whose reward equals the median
        (["gbpo", "gbpo:learning_rate=0.001"], []),
        (["grpo", "gbpo:target_baseline=mean,overshoot_slope=0"], []),
        (["grpo", "gbpo:target_baseline=mean,target_temperature=0,overshoot_slope=0,bound_exponent=1"], []),  # DPPO
        (["grpo", "grpo:loss_type=cispo", "grpo:loss_type=sapo", "grpo:loss_type=vespo"], []),
        (["grpo", "grpo:importance_sampling_level=sequence"], []),
    ],
)
def test_a_comparison_with_a_difference_is_accepted(algorithms, flags):
    assert shared_run_notes(grid_points(TINY, algorithms, {}, flags)) == []


def test_points_that_take_the_same_steps_are_run_once():
    flags = ["--per_device_train_batch_size=256", "--steps_per_generation=1"]
    grid = {"epsilon": [0.2, 0.3], "num_iterations": [1, 4]}
    found = grid_points(TINY, ["grpo", "gbpo", "gbpo:target_baseline=exact"], grid, flags)
    run_by = {point.name: point.same_as.name if point.same_as else None for point in found}
    once = {
        "gbpo:target_baseline=exact, epsilon=0.2, num_iterations=1": "grpo, epsilon=0.2, num_iterations=1",
        "grpo, epsilon=0.3, num_iterations=1": "grpo, epsilon=0.2, num_iterations=1",
        "gbpo, epsilon=0.3, num_iterations=1": "gbpo, epsilon=0.2, num_iterations=1",
        "gbpo:target_baseline=exact, epsilon=0.3, num_iterations=1": "grpo, epsilon=0.2, num_iterations=1",
    }
    assert len(found) == 12 and {name: run for name, run in run_by.items() if run} == once
    assert len({point.folder(0) for point in found}) == 8
    ours, median = shared_run_notes(found)
    assert ours.endswith(
        "grpo, epsilon=0.2, num_iterations=1; gbpo:target_baseline=exact, epsilon=0.2, num_iterations=1; "
        "grpo, epsilon=0.3, num_iterations=1; gbpo:target_baseline=exact, epsilon=0.3, num_iterations=1."
    )
    assert "gbpo, epsilon=0.2, num_iterations=1; gbpo, epsilon=0.3, num_iterations=1." in median


@pytest.mark.parametrize("field", ["system_prompt=Add.,Sum up.", "learning_rate=1e-4,3e-4", "model_revision=a,b"])
def test_points_that_differ_in_another_field_are_run_separately(field):
    found = grid_points(TINY, ["grpo"], read_grid([field]), ONE_UPDATE)
    assert [point.same_as for point in found] == [None, None]


def test_gbpo_runs_every_row_by_default():
    """With skip_zero_signal, entropy and ratios would cover only the rows that are run."""
    for flags, expected in (([], False), (["--exact_speedups=all"], True)):
        grpo, gbpo = grid_points(TINY, ["grpo", "gbpo"], {"num_iterations": [4]}, flags)
        assert ("skip_zero_signal" in requested_speedups(gbpo.recipe.training.exact_speedups)) is expected
        assert not any("exact_speedups" in flag for flag in grpo.flags)
    (asked,) = grid_points(TINY, ["gbpo:exact_speedups=all"], {}, [])
    assert asked.recipe.training.exact_speedups == ["all"]
