"""What creates an environment, and which options it gets."""

from fractions import Fraction

import pytest

from gbpo.run.environments import kinds
from gbpo.run.environments.kinds import environments
from gbpo.run.recipe.arguments import RunArguments


def run(environment, dataset_name="arithmetic", **options):
    return RunArguments(dataset_name=dataset_name, environment=environment, environment_kwargs=options)


def test_one_environment_gets_all_options():
    assert environments(run("fractions.Fraction", numerator=3, denominator=4))[None]() == Fraction(3, 4)
    with pytest.raises(TypeError, match="size"):
        environments(run("builtin:code_word", size=3))[None]()


def test_each_of_several_environments_gets_its_own_options():
    makes = environments(run({"one": "fractions.Fraction", "other": "fractions.Fraction"}, one={"numerator": 3}))
    assert {name: make() for name, make in makes.items()} == {"one": Fraction(3), "other": Fraction(0)}


def test_an_environment_with_rows_of_its_own_takes_no_others(monkeypatch):
    monkeypatch.setattr(kinds.verifiers, "connect", lambda spec, options: lambda: (spec, options))
    name = "verifiers:gsm8k"
    assert environments(run(name, dataset_name=name, limit=5))[None]() == (name, {"limit": 5})
    with pytest.raises(ValueError, match="gsm8k has rows of its own, and dataset_name='arithmetic' has other rows"):
        environments(run(name))
