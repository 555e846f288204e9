"""The target ratio ρ*: numbers computed by hand, independent references and properties of the optimum.

The references are a linear programme, a convex solver, bisection over rational numbers, and NumPy.
"""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize
from scipy.special import expit, xlogy

from gbpo.core import (
    bound_width,
    exact_target_ratio,
    group_median,
    group_target_ratio,
    target_ratio,
    widened_target_ratio,
)
from gbpo.core.targets import BASELINES, SCALES

NAN = math.nan
INF = math.inf
SYMMETRIC = {"epsilon_low": 0.2, "epsilon_high": 0.2}
ASYMMETRIC = {"epsilon_low": 0.2, "epsilon_high": 0.3}

check = settings(max_examples=150, deadline=None, derandomize=True)
epsilons_low = st.one_of(st.just(1.0), st.floats(0.01, 1.0))
epsilons_high = st.floats(0.01, 8.0)
finite = st.floats(-1e3, 1e3)
values_with_ties = st.lists(st.one_of(st.sampled_from([0.0, 0.5, 1.0]), finite), min_size=1, max_size=10)
integers_with_ties = st.lists(st.integers(-3, 3), min_size=1, max_size=10)


@pytest.fixture
def default_dtype():
    """Set torch's default dtype, as model loaders do. It is restored after the test."""
    before = torch.get_default_dtype()
    yield torch.set_default_dtype
    torch.set_default_dtype(before)


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def assert_close(actual, expected, atol=1e-12):
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype), rtol=0, atol=atol)


def random_bounds(rng):
    """Symmetric and asymmetric bounds, some with lower bound 0."""
    low = float(rng.choice([0.1, 0.2, 0.3, 1.0, rng.uniform(0.05, 1.0)]))
    return {"epsilon_low": low, "epsilon_high": float(rng.choice([low, 0.28, 3.0, rng.uniform(0.05, 4.0)]))}


def random_values(rng, size):
    """The values of a group: binary, from a few classes, all equal, or without ties."""
    kind = rng.integers(4)
    if kind == 0:
        return rng.integers(0, 2, size).astype(float)
    if kind == 1:
        return rng.integers(0, 4, size) / 3
    if kind == 2:
        return np.full(size, rng.normal())
    return rng.normal(size=size)


# ---------------------------------------------------------------------------------------------------------------------
# target_ratio
# ---------------------------------------------------------------------------------------------------------------------


def test_target_ratio_at_hand_computed_points():
    temperature = 0.1
    centred = double([-math.log(3), 0.0, math.log(3), math.log(9)]) * temperature
    # σ(-ln 3) = 1/4, σ(0) = 1/2, σ(ln 3) = 3/4, σ(ln 9) = 9/10
    # symmetric 0.2:        0.8 + 0.4 · (1/4, 1/2, 3/4, 9/10) = 0.9, 1, 1.1, 1.16
    # low 0.2 and high 0.3: 0.8 + 0.5 · (1/4, 1/2, 3/4, 9/10) = 0.925, 1.05, 1.175, 1.25
    assert_close(target_ratio(centred, temperature=temperature, **SYMMETRIC), [0.9, 1.0, 1.1, 1.16])
    assert_close(target_ratio(centred, temperature=temperature, **ASYMMETRIC), [0.925, 1.05, 1.175, 1.25])


def test_target_ratio_at_temperature_zero_is_a_step_function():
    centred = double([-2.0, -1e-300, -0.0, 0.0, 1e-300, 2.0])
    # 0.8 + 0.5 · (0, 0, 1/2, 1/2, 1, 1)
    assert_close(target_ratio(centred, temperature=0.0, **ASYMMETRIC), [0.8, 0.8, 1.05, 1.05, 1.3, 1.3])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("epsilon", [0.1, 0.2, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("temperature", [0.0, 1e-4, 1.0])
def test_target_ratio_is_exactly_one_at_zero_with_symmetric_bounds(dtype, epsilon, temperature):
    target = target_ratio(
        torch.zeros(1, dtype=dtype), epsilon_low=epsilon, epsilon_high=epsilon, temperature=temperature
    )
    assert target.item() == 1.0


@check
@given(st.lists(st.floats(allow_nan=False), min_size=1), epsilons_low, epsilons_high, st.floats(0.0, 1e6))
def test_target_ratio_stays_within_its_bounds_and_rises_with_the_signal(centred, low, high, temperature):
    centred = torch.sort(double(centred)).values
    target = target_ratio(centred, epsilon_low=low, epsilon_high=high, temperature=temperature)
    rounding = torch.finfo(torch.float64).eps * (1 + high)
    assert (target >= 1 - low - rounding).all()
    assert (target <= 1 + high + rounding).all()
    assert (target.diff() >= 0).all()


@pytest.mark.parametrize("temperature", [0.0, 1e-4, 1.0])
def test_target_ratio_reaches_both_bounds(temperature):
    target = target_ratio(double([-INF, -1e9, 1e9, INF]), temperature=temperature, **ASYMMETRIC)
    assert_close(target, [0.8, 0.8, 1.3, 1.3])


@pytest.mark.parametrize("temperature", [0.0, 1e-4, 1.0])
def test_target_ratio_of_nan_is_nan_and_does_not_affect_the_others(temperature):
    target = target_ratio(double([-1e3, NAN, 1e3]), temperature=temperature, **ASYMMETRIC)
    assert target[1].isnan()
    assert_close(target[[0, 2]], [0.8, 1.3])


@pytest.mark.parametrize(
    ("dtype", "temperature"),
    [(torch.float32, 1e-39), (torch.float32, 1e-45), (torch.float32, 1e-300), (torch.float64, 5e-324)],
)
def test_target_ratio_at_a_temperature_below_the_dtype_is_a_step_function(dtype, temperature):
    target = target_ratio(torch.tensor([-1.0, 0.0, 1.0], dtype=dtype), temperature=temperature, **ASYMMETRIC)
    assert_close(target, [0.8, 1.05, 1.3], atol=2e-7 if dtype == torch.float32 else 1e-12)


def test_target_ratio_in_float64_distinguishes_a_temperature_of_1e_45_from_zero():
    # σ(ln 3) = 3/4, 0.8 + 0.5 · 3/4 = 1.175
    assert_close(target_ratio(double([1e-45 * math.log(3)]), temperature=1e-45, **ASYMMETRIC), [1.175])


# ---------------------------------------------------------------------------------------------------------------------
# dtype, gradient and errors: the same for all three functions
# ---------------------------------------------------------------------------------------------------------------------


def of_centred(values, **options):
    return target_ratio(values, **{"temperature": 0.5, **SYMMETRIC, **options})


def of_exact(values, **options):
    return exact_target_ratio(values, **{"temperature": 0.5, **SYMMETRIC, **options})


def of_group(values, **options):
    return group_target_ratio(values, 4, **{"temperature": 0.5, **SYMMETRIC, **options})


every_function = pytest.mark.parametrize("function", [of_centred, of_exact, of_group])


@every_function
@pytest.mark.parametrize("temperature", [0.0, 0.5])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.int64, torch.int32, torch.bool])
def test_narrow_inputs_are_computed_and_returned_in_float32(function, dtype, temperature):
    values = torch.tensor([0, 1, 0, 1], dtype=dtype)
    target = function(values, temperature=temperature)
    assert target.dtype == torch.float32
    assert torch.equal(target, function(values.float(), temperature=temperature))


@every_function
@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_float64_stays_float64(function, temperature):
    assert function(double([0, 1, 0, 1]), temperature=temperature).dtype == torch.float64


@every_function
@pytest.mark.parametrize("temperature", [0.0, 0.5])
@pytest.mark.parametrize("setting", [torch.bfloat16, torch.float32, torch.float64])
def test_the_target_does_not_depend_on_torch_s_default_dtype(function, temperature, setting, default_dtype):
    bounds = {"epsilon_low": 0.3, "epsilon_high": 0.28, "temperature": temperature}
    default_dtype(torch.float64)
    reference = function(torch.tensor([0.0, 0.0, 1.0, 0.0], dtype=torch.float32), **bounds)
    default_dtype(setting)
    assert torch.equal(function(torch.tensor([0.0, 0.0, 1.0, 0.0], dtype=torch.float32), **bounds), reference)


@every_function
@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_no_gradient_flows_through_the_target(function, temperature):
    values = double([0.0, 1.0, 3.0, 4.0]).requires_grad_()
    assert not function(values, temperature=temperature).requires_grad


@every_function
@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_the_input_is_not_modified(function, temperature):
    values = double([0.0, 1.0, NAN, 4.0])
    before = values.clone()
    function(values, temperature=temperature)
    torch.testing.assert_close(values, before, rtol=0, atol=0, equal_nan=True)


@every_function
@pytest.mark.parametrize(
    ("option", "value", "fix"),
    [
        *[("epsilon_low", value, "Write a value in (0, 1], for example 0.2") for value in (0.0, -0.1, 1.01, NAN, INF)],
        *[("epsilon_high", value, "Write a positive value, for example 0.2") for value in (0.0, -0.1, NAN, INF)],
        *[("temperature", value, "Write 0 for a hard target, or a positive number") for value in (-1e-4, NAN, INF)],
    ],
)
def test_an_invalid_bound_or_temperature_is_refused(function, option, value, fix):
    with pytest.raises(ValueError) as caught:
        function(double([0, 1, 0, 1]), **{option: value})
    assert f"{option}={value} " in str(caught.value)
    assert fix in str(caught.value)


@every_function
def test_extreme_bounds_are_accepted(function):
    target = function(double([-1, 1, -1, 1]), epsilon_low=1.0, epsilon_high=1e6, temperature=0.0)
    assert target.min() == 0.0


# ---------------------------------------------------------------------------------------------------------------------
# exact_target_ratio at temperature 0
# ---------------------------------------------------------------------------------------------------------------------


def test_exact_target_of_two_correct_in_eight():
    # symmetric ε = 0.3: total lift m = 8 · ½ = 4; the two correct get 1 each: 1.3; the six wrong share 2:
    # 0.7 + 0.6 · 2/6 = 0.9 = 1 - ε/3
    values = double([1, 0, 0, 1, 0, 0, 0, 0])
    expected = [1.3, 0.9, 0.9, 1.3, 0.9, 0.9, 0.9, 0.9]
    assert_close(exact_target_ratio(values, epsilon_low=0.3, epsilon_high=0.3), expected)


def test_exact_target_of_six_correct_in_eight():
    # total lift 4, shared by six correct: 0.7 + 0.6 · 4/6 = 1.1 = 1 + ε/3; the two wrong get 0: 0.7
    values = double([1, 1, 1, 0, 1, 1, 0, 1])
    expected = [1.1, 1.1, 1.1, 0.7, 1.1, 1.1, 0.7, 1.1]
    assert_close(exact_target_ratio(values, epsilon_low=0.3, epsilon_high=0.3), expected)


def test_exact_target_of_several_tied_classes():
    # symmetric 0.2, total lift 7/2: the two 3s get 1 each: 1.2; the three 2s share 3/2: 0.8 + 0.4 · 1/2 = 1; rest 0.8
    values = double([2, 3, 1, 2, 3, 2, 1])
    assert_close(exact_target_ratio(values, **SYMMETRIC), [1.0, 1.2, 0.8, 1.0, 1.2, 1.0, 0.8])


def test_exact_target_of_asymmetric_bounds():
    # low 0.2, high 0.3: total lift 5 · 0.2/0.5 = 2: the two best get 1 each: 1.3; the others get 0: 0.8
    assert_close(exact_target_ratio(double([5, 1, 4, 2, 3]), **ASYMMETRIC), [1.3, 0.8, 1.3, 0.8, 0.8])
    # total lift 4 · 0.2/0.5 = 1.6: the best gets 1, the next two share 0.6: 0.8 + 0.5 · 0.3 = 0.95
    assert_close(exact_target_ratio(double([1, 2, 0, 1]), **ASYMMETRIC), [0.95, 1.3, 0.8, 0.95])


def test_exact_target_with_lower_bound_zero_selects_the_top_quarter():
    # bounds 0 and 1/q with q = 1/4: ε_low = 1, ε_high = 3; total lift 8 · 1/4 = 2: the two best get the ratio 4
    expected = [0.0, 4.0, 0.0, 0.0, 0.0, 0.0, 4.0, 0.0]
    assert_close(exact_target_ratio(double([2, 9, 4, 1, 0, 5, 8, 3]), epsilon_low=1.0, epsilon_high=3.0), expected)


def test_exact_target_with_missing_samples():
    # three samples, total lift 3/2: the best gets 1, the two tied share 1/2: 0.8 + 0.4 · 1/4 = 0.9; missing ones get 1
    assert_close(exact_target_ratio(double([NAN, 0, 7, NAN, 0]), **SYMMETRIC), [1.0, 0.9, 1.2, 1.0, 0.9])


def test_exact_target_uses_only_the_order_of_infinite_values():
    # total lift 2: both +∞ get 1
    assert_close(exact_target_ratio(double([INF, 0, INF, -INF]), **SYMMETRIC), [1.2, 0.8, 1.2, 0.8])
    # total lift 3/2: the finite value gets 1, the two -∞ share 1/2: 0.8 + 0.4 · 1/4 = 0.9
    assert_close(exact_target_ratio(double([-INF, 0, -INF]), **SYMMETRIC), [0.9, 1.2, 0.9])


def test_exact_target_distinguishes_large_integers():
    target = exact_target_ratio(torch.tensor([2**24, 2**24 + 1]), **SYMMETRIC)
    assert target.dtype == torch.float32 and target[0] < 1 < target[1]


@pytest.mark.parametrize("seed", range(300))
def test_exact_target_solves_the_linear_programme(seed):
    """SciPy's solver maximises Σ ρ v subject to mean(ρ) = 1 and the bounds. A third of the groups contain NaN."""
    rng = np.random.default_rng(seed)
    values = random_values(rng, rng.integers(1, 13))
    if seed % 3 == 0:
        values[rng.random(values.size) < 0.3] = NAN
    bounds = random_bounds(rng)
    target = exact_target_ratio(double(values), **bounds)
    present = ~np.isnan(values)
    assert (target[torch.from_numpy(~present)] == 1.0).all()
    if not present.any():
        return
    ratio, value = target.numpy()[present], values[present]

    low, high = 1 - bounds["epsilon_low"], 1 + bounds["epsilon_high"]
    assert ratio.min() >= low - 1e-14
    assert ratio.max() <= high + 1e-14
    assert ratio.mean() == pytest.approx(1.0, rel=0, abs=1e-12)
    solution = linprog(-value, A_eq=np.ones((1, value.size)), b_eq=[value.size], bounds=(low, high))
    assert ratio @ value == pytest.approx(-solution.fun, rel=0, abs=1e-9)
    # a group with ties has many optima; ours gives equal values the same ratio
    for tied in np.unique(value):
        assert np.ptp(ratio[value == tied]) == 0.0


# ---------------------------------------------------------------------------------------------------------------------
# exact_target_ratio at temperatures above 0
# ---------------------------------------------------------------------------------------------------------------------


def test_exact_target_with_temperature_at_hand_computed_points():
    # symmetric bounds: the mean lift is ½, so μ is the middle one of three equally spaced values.
    # T = 1/ln 3: σ(∓ln 3) = 1/4, 3/4: 0.8 + 0.4 · (1/4, 1/2, 3/4)
    target = exact_target_ratio(double([4, 5, 6]), temperature=1 / math.log(3), **SYMMETRIC)
    assert_close(target, [0.9, 1.0, 1.1])
    # low 1, high 2: the mean lift is 1/3, the sum over two samples 2/3 = 1/2 + 1/6 = σ(0) + σ(-ln 5)
    target = exact_target_ratio(double([0, math.log(5)]), temperature=1.0, epsilon_low=1.0, epsilon_high=2.0)
    assert_close(target, [0.5, 1.5])  # 3 · (1/6, 1/2)


def exact_reference(values, epsilon_low, epsilon_high, temperature):
    """The published regularised optimum. μ solves mean(ρ*) = 1 by bisection over rational numbers."""
    values = [Fraction(float(value)) for value in values]
    low, high, temperature = Fraction(epsilon_low), Fraction(epsilon_high), Fraction(temperature)
    lifts = float(len(values) * low / (low + high))

    def lift(value, mu):
        z = float(max(min((value - mu) / temperature, 700), -700))
        return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))

    below, above = min(values) - 200 * temperature, max(values) + 200 * temperature
    for _ in range(130):
        mu = (below + above) / 2
        if math.fsum(lift(value, mu) for value in values) > lifts:
            below = mu
        else:
            above = mu
    return [1 - epsilon_low + (epsilon_low + epsilon_high) * lift(value, below) for value in values]


@pytest.mark.parametrize("temperature", [10.0**power for power in range(-8, 4)])
@pytest.mark.parametrize("scale", [10.0**power for power in range(-6, 7, 2)])
def test_exact_target_with_temperature_solves_the_mean_condition(temperature, scale):
    rng = np.random.default_rng([round(temperature * 1e8), round(scale * 1e6)])
    for _ in range(2):
        values = scale * random_values(rng, rng.integers(1, 8))
        bounds = random_bounds(rng)
        target = exact_target_ratio(double(values), temperature=temperature, **bounds)
        assert_close(target, exact_reference(values, temperature=temperature, **bounds))


@pytest.mark.parametrize("seed", range(40))
def test_exact_target_with_temperature_solves_the_regularised_programme(seed):
    """The optimum p = σ((v - μ) / T) maximises Σ (p v + T H(p)) subject to Σ p = m. H is the binary entropy."""
    rng = np.random.default_rng(seed)
    values, bounds = random_values(rng, rng.integers(2, 9)), random_bounds(rng)
    temperature = 10 ** rng.uniform(-0.5, 1)
    lifts = values.size * bounds["epsilon_low"] / (bounds["epsilon_low"] + bounds["epsilon_high"])

    def cost(p):
        return temperature * (xlogy(p, p) + xlogy(1 - p, 1 - p)).sum() - p @ values

    solution = minimize(
        cost,
        np.full(values.size, lifts / values.size),
        jac=lambda p: temperature * (np.log(p) - np.log1p(-p)) - values,
        bounds=[(1e-9, 1 - 1e-9)] * values.size,
        constraints={"type": "eq", "fun": lambda p: p.sum() - lifts, "jac": np.ones_like},
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 500},
    )
    target = exact_target_ratio(double(values), temperature=temperature, **bounds).numpy()
    lift = (target - 1 + bounds["epsilon_low"]) / (bounds["epsilon_low"] + bounds["epsilon_high"])
    assert lift.sum() == pytest.approx(lifts, rel=0, abs=1e-11)
    assert cost(lift) <= cost(solution.x) + 1e-11
    np.testing.assert_allclose(lift, solution.x, rtol=0, atol=1e-6)


@check
@given(values_with_ties, epsilons_low, epsilons_high, st.integers(-8, 3))
def test_exact_target_has_mean_one(values, low, high, power):
    for temperature in (0.0, 10.0**power):
        options = {"epsilon_low": low, "epsilon_high": high, "temperature": temperature}
        wide = exact_target_ratio(double(values), **options)
        narrow = exact_target_ratio(torch.tensor(values, dtype=torch.float32), **options)
        assert wide.mean().item() == pytest.approx(1.0, rel=0, abs=1e-12)
        assert narrow.double().mean().item() == pytest.approx(1.0, rel=0, abs=1e-6)
        # solved in float64 and rounded once
        rounded = exact_target_ratio(torch.tensor(values, dtype=torch.float32).double(), **options).float()
        assert torch.equal(narrow, rounded)


@pytest.mark.parametrize(
    "bounds", [SYMMETRIC, ASYMMETRIC, {"epsilon_low": 0.2, "epsilon_high": 0.28}, {"epsilon_low": 1, "epsilon_high": 9}]
)
@pytest.mark.parametrize("values", [[3, 1, 2], [1, 1, 0, 0], [1, 0, 0, 0, 0, 0, 0], [2, 2, 2, 1, 0]])
def test_exact_target_tends_to_its_limit_as_the_temperature_falls(values, bounds):
    limit = exact_target_ratio(double(values), **bounds)
    distances = [
        (exact_target_ratio(double(values), temperature=temperature, **bounds) - limit).abs().max().item()
        for temperature in (0.3, 0.1, 0.03, 0.01, 1e-4, 1e-8)
    ]
    assert distances[0] > 1e-3
    assert distances[0] > distances[1] > distances[2]
    assert max(distances[3:]) < 1e-12


def test_exact_target_tends_to_one_as_the_temperature_rises():
    # every sample tends to the same ratio, which is the mean, 1; the difference falls as 1 / T
    distances = [
        (exact_target_ratio(double([3, 1, 0, 0]), temperature=temperature, **ASYMMETRIC) - 1).abs().max().item()
        for temperature in (1e3, 1e6, 1e12)
    ]
    assert 0 < distances[1] < 1e-6 < distances[0] < 1e-3
    assert distances[2] < 1e-12


def test_exact_target_with_temperature_and_infinite_values():
    # total lift 2: +∞ gets 1, -∞ gets 0; 2 ln 3 and 0 share 1 at μ = ln 3: σ(±ln 3) = 3/4, 1/4
    # 0.8 + 0.4 · (3/4, 1/4) = 1.1, 0.9
    target = exact_target_ratio(double([INF, 2 * math.log(3), 0, -INF]), temperature=1.0, **SYMMETRIC)
    assert_close(target, [1.2, 1.1, 0.9, 0.8])
    # total lift 2: the three +∞ get 2/3 each: 0.8 + 0.4 · 2/3 = 16/15; 0 gets nothing
    target = exact_target_ratio(double([INF, INF, 0, INF]), temperature=1.0, **SYMMETRIC)
    assert_close(target, [16 / 15, 16 / 15, 0.8, 16 / 15])
    # total lift 3/2: 0 gets 1, the two -∞ share 1/2; missing samples get 1
    target = exact_target_ratio(double([-INF, 0, NAN, -INF]), temperature=1.0, **SYMMETRIC)
    assert_close(target, [0.9, 1.2, 1.0, 0.9])


# ---------------------------------------------------------------------------------------------------------------------
# exact_target_ratio: properties at any temperature
# ---------------------------------------------------------------------------------------------------------------------

any_temperature = st.sampled_from([0.0, 1e-8, 1e-2, 1.0, 1e3])


@check
@given(values_with_ties, epsilons_low, epsilons_high, any_temperature)
def test_exact_target_stays_within_its_bounds_and_rises_with_the_value(values, low, high, temperature):
    values = torch.sort(double(values)).values
    target = exact_target_ratio(values, epsilon_low=low, epsilon_high=high, temperature=temperature)
    rounding = torch.finfo(torch.float64).eps * (1 + high)
    assert (target >= 1 - low - rounding).all()
    assert (target <= 1 + high + rounding).all()
    assert (target.diff() >= 0).all()
    assert (target.diff()[values.diff() == 0] == 0).all()


@check
@given(integers_with_ties, st.integers(1, 4), any_temperature, st.data())
def test_raising_one_value_raises_its_target_and_lowers_the_others(values, gain, temperature, data):
    options = {"temperature": temperature, **ASYMMETRIC}
    raised = data.draw(st.integers(0, len(values) - 1))
    better = list(values)
    better[raised] += gain
    change = exact_target_ratio(double(better), **options) - exact_target_ratio(double(values), **options)
    assert change[raised] >= -1e-12
    change[raised] = 0.0
    assert (change <= 1e-12).all()


@check
@given(values_with_ties, any_temperature, st.randoms(use_true_random=False))
def test_exact_target_is_equivariant_under_permutation(values, temperature, random):
    order = list(range(len(values)))
    random.shuffle(order)
    options = {"temperature": temperature, **ASYMMETRIC}
    target = exact_target_ratio(double(values), **options)
    assert_close(exact_target_ratio(double(values)[order], **options), target[order])


@check
@given(integers_with_ties, st.integers(-1000, 1000), any_temperature)
def test_exact_target_does_not_change_under_a_shift(values, shift, temperature):
    options = {"temperature": temperature, **ASYMMETRIC}
    target = exact_target_ratio(double(values), **options)
    assert torch.equal(exact_target_ratio(double(values) + shift, **options), target)


@check
@given(integers_with_ties, st.floats(1e-6, 1e6), any_temperature)
def test_exact_target_does_not_change_under_a_positive_scale(values, scale, temperature):
    target = exact_target_ratio(double(values), **ASYMMETRIC)
    assert torch.equal(exact_target_ratio(double(values) * scale, **ASYMMETRIC), target)
    # with a temperature, if it is scaled too
    target = exact_target_ratio(double(values), temperature=temperature, **ASYMMETRIC)
    assert_close(exact_target_ratio(double(values) * scale, temperature=temperature * scale, **ASYMMETRIC), target)


@check
@given(values_with_ties, st.integers(1, 4), any_temperature)
def test_missing_samples_get_one_and_do_not_affect_the_others(values, missing, temperature):
    options = {"temperature": temperature, **ASYMMETRIC}
    mixed = exact_target_ratio(double([NAN, *values] + [NAN] * missing), **options)
    assert_close(mixed[1 : 1 + len(values)], exact_target_ratio(double(values), **options))
    assert (mixed[0] == 1.0).all()
    assert (mixed[1 + len(values) :] == 1.0).all()


@pytest.mark.parametrize("temperature", [0.0, 1e-45, 1e-4, 1e3])
@pytest.mark.parametrize("bounds", [SYMMETRIC, ASYMMETRIC, {"epsilon_low": 1.0, "epsilon_high": 7.0}])
def test_groups_without_distinct_values_get_one(temperature, bounds):
    options = {"temperature": temperature, **bounds}
    for value in (-3.0, 0.0, 1e6, INF, -INF, NAN):
        assert_close(exact_target_ratio(double([value]), **options), [1.0])
        assert_close(exact_target_ratio(double([value] * 5), **options), [1.0] * 5)


@pytest.mark.parametrize("temperature", [0.0, 1e-45, 1e-4, 0.5, 1e3])
def test_groups_in_batch_dimensions_are_independent(temperature):
    rng = np.random.default_rng(0)
    batch = double(np.stack([random_values(rng, 5) for _ in range(12)])).reshape(2, 6, 5)
    batch[0, 1, 2] = batch[1, 0, :4] = batch[1, 3] = NAN
    batch[0, 2, 1], batch[0, 2, 3], batch[1, 5, 0] = INF, INF, -INF
    options = {"temperature": temperature, **ASYMMETRIC}
    target = exact_target_ratio(batch, **options)
    assert target.shape == (2, 6, 5)
    for i in range(2):
        for j in range(6):
            assert_close(target[i, j], exact_target_ratio(batch[i, j], **options))


# ---------------------------------------------------------------------------------------------------------------------
# group_target_ratio
# ---------------------------------------------------------------------------------------------------------------------


def test_group_target_at_hand_computed_points():
    rewards = double([0, 0, 1, 3])
    # the midpoint median is ½ (the lower median would be 0); deviations -½, -½, ½, 5/2
    # divided by T = ½/ln 3: ln 3 · (-1, -1, 1, 5), so σ = 1/4, 1/4, 3/4, 243/244; asymmetric: 0.8 + 0.5 · σ
    temperature = 0.5 / math.log(3)
    target = group_target_ratio(rewards, 4, scale_rewards="none", temperature=temperature, **ASYMMETRIC)
    assert_close(target, [0.925, 0.925, 1.175, 0.8 + 0.5 * 243 / 244])
    # mean 1: deviations -1, -1, 0, 2; T = 1/ln 3: σ = 1/4, 1/4, 1/2, 9/10
    temperature = 1 / math.log(3)
    target = group_target_ratio(
        rewards, 4, baseline="mean", scale_rewards="none", temperature=temperature, **ASYMMETRIC
    )
    assert_close(target, [0.925, 0.925, 1.05, 1.25])
    # unbiased variance (1 + 1 + 0 + 4) / 3 = 2: the same numbers at T = 1 / ((√2 + 1e-6) ln 3)
    temperature = 1 / ((math.sqrt(2) + 1e-6) * math.log(3))
    target = group_target_ratio(rewards, 4, baseline="mean", temperature=temperature, **ASYMMETRIC)
    assert_close(target, [0.925, 0.925, 1.05, 1.25])


def test_the_published_target_gives_the_tied_majority_half_a_lift():
    # two correct in eight: the median is 0, so the wrong ones get σ(0) = ½; symmetric: 1, asymmetric: 1 + (0.3 - 0.2)/2
    rewards = torch.tensor([1.0, 0, 0, 1, 0, 0, 0, 0])
    expected = torch.tensor([1.2, 1, 1, 1.2, 1, 1, 1, 1])
    assert torch.equal(group_target_ratio(rewards, 8, **SYMMETRIC), expected)
    assert_close(group_target_ratio(rewards.double(), 8, **ASYMMETRIC), [1.3, *[1.05] * 2, 1.3, *[1.05] * 4])


def test_the_default_is_the_published_method():
    published = {"baseline": "median", "temperature": 1e-4, "scale_rewards": "group"}
    rewards = double([-1, 0, 2e-4, 1, -9, 0, 2e-4, 9])  # distances from the median of about T standard deviations
    target = group_target_ratio(rewards, 4, **ASYMMETRIC)
    assert torch.equal(target, group_target_ratio(rewards, 4, **ASYMMETRIC, **published))
    for other in ({"baseline": "mean"}, {"temperature": 1e-3}, {"scale_rewards": "batch"}):
        assert (target - group_target_ratio(rewards, 4, **ASYMMETRIC, **{**published, **other})).abs().max() > 0.01
    # close to the median, where T matters: z = 1e-4 · ln 3 · std/(std + 1e-6), so σ = σ(ln 3) = 3/4 to 6 digits
    rewards = double([-1, 0, 0, 1])
    rewards[2] = 2 * 1e-4 * math.log(3) * rewards.std().item()
    assert_close(group_target_ratio(rewards, 4, **ASYMMETRIC)[1:3], [0.925, 1.175], atol=1e-6)


def published_target(rewards, size, epsilon_low, epsilon_high, baseline, temperature, scale_rewards):
    """z = (r - baseline) / (std + 1e-6) and ρ* = 1 - ε_low + (ε_low + ε_high) · σ(z / T), in NumPy for each group."""

    def std(values):
        return values.std(ddof=1) if values.size > 1 else 1.0

    targets = np.ones(rewards.size)
    for start in range(0, rewards.size, size):
        rows = np.arange(start, start + size)
        rows = rows[~np.isnan(rewards[rows])]
        if rows.size == 0:
            continue
        group = rewards[rows]
        centre = 0.0 if size == 1 else {"median": np.median, "mean": np.mean}[baseline](group)
        scale = {"group": std(group), "batch": std(rewards[~np.isnan(rewards)])}.get(scale_rewards)
        z = group - centre if scale is None else (group - centre) / (scale + 1e-6)
        lift = expit(z / temperature) if temperature else (np.sign(z) + 1) / 2
        targets[rows] = 1 - epsilon_low + (epsilon_low + epsilon_high) * lift
    return targets


@pytest.mark.parametrize("scale_rewards", SCALES)
@pytest.mark.parametrize("baseline", ["median", "mean"])
@pytest.mark.parametrize("temperature", [0.0, 1e-4, 0.1, 1.0])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 8])
def test_group_target_matches_the_published_formula(size, temperature, baseline, scale_rewards):
    for seed, spread in enumerate((1e-6, 1e-2, 1.0, 1e3)):
        rng = np.random.default_rng([seed, size])
        rewards = spread * rng.normal(size=(7, size))
        rewards[:2, size // 2] = rewards[:2, 0]  # a tie
        rewards[1:3, -1] = NAN
        rewards[3] = NAN
        rewards[4, 1:] = NAN
        rewards = rewards.reshape(-1)
        options = {
            **random_bounds(rng),
            "baseline": baseline,
            "temperature": temperature,
            "scale_rewards": scale_rewards,
        }
        target = group_target_ratio(double(rewards), size, **options)
        assert target.shape == rewards.shape
        # z is rounded by 1e-16 · max|r| / std, so z / T by 1e-12
        assert_close(target, published_target(rewards, size, **options), atol=2e-11)


@pytest.mark.parametrize("offset", [1.0, 100.0, 1e4])
def test_group_target_in_float32_is_precise_for_rewards_with_an_offset(offset):
    # the values next to the median differ by one float32 step, so z is about as large as the temperature
    rewards = torch.tensor([offset], dtype=torch.float32) * torch.tensor([0.97, 1 - 2**-23, 1, 1 + 2**-23, 1.03])
    for bounds in (SYMMETRIC, ASYMMETRIC):
        options = {"baseline": "median", "temperature": 1e-4, "scale_rewards": "group", **bounds}
        expected = published_target(rewards.double().numpy(), 5, **options)
        assert_close(group_target_ratio(rewards, 5, **options), expected, atol=1e-6)


def test_a_group_of_size_one_matches_the_paper():
    # median 0 and std 1, so z is the reward itself; T = (1/ln 3) / (1 + 1e-6): σ(r ln 3) = 1/4, 1/2, 3/4
    temperature = 1 / (math.log(3) * (1 + 1e-6))
    for baseline in ("median", "mean"):
        target = group_target_ratio(double([-1, 0, 1]), 1, baseline=baseline, temperature=temperature, **ASYMMETRIC)
        assert_close(target, [0.925, 1.05, 1.175])
    assert_close(group_target_ratio(double([-1, 0, 1]), 1, baseline="exact", **ASYMMETRIC), [1.0, 1.0, 1.0])


@pytest.mark.parametrize("scale_rewards", SCALES)
@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("temperature", [0.0, 1e-4, 1.0])
def test_missing_rewards_get_one_and_do_not_affect_the_others(temperature, baseline, scale_rewards):
    scored = [4.0, 0.0, 1.0, 1.0, 3.0, 7.0]
    with_missing = [4.0, NAN, 0.0, 1.0, NAN, 1.0, NAN, 3.0, 7.0, NAN]
    options = {"baseline": baseline, "temperature": temperature, "scale_rewards": scale_rewards, **ASYMMETRIC}
    target = group_target_ratio(double(with_missing), 5, **options)
    missing = double(with_missing).isnan()
    assert (target[missing] == 1.0).all()
    assert_close(target[~missing], group_target_ratio(double(scored), 3, **options))
    assert torch.equal(group_target_ratio(double([NAN] * 4), 4, **options), double([1.0] * 4))
    assert torch.equal(group_target_ratio(double([NAN] * 4), 1, **options), double([1.0] * 4))


@pytest.mark.parametrize("scale_rewards", SCALES)
@pytest.mark.parametrize("baseline", BASELINES)
def test_an_empty_batch_has_no_targets(baseline, scale_rewards):
    target = group_target_ratio(torch.zeros(0), 4, baseline=baseline, scale_rewards=scale_rewards, **SYMMETRIC)
    assert target.shape == (0,) and target.dtype == torch.float32


@pytest.mark.parametrize("reward", [torch.inf, -torch.inf])
@pytest.mark.parametrize("baseline", BASELINES)
def test_an_infinite_reward_is_refused(baseline, reward):
    with pytest.raises(ValueError, match="Infinite rewards .* Return a finite reward, or None"):
        group_target_ratio(torch.tensor([0.0, 1.0, reward, 0.5]), 4, baseline=baseline, **SYMMETRIC)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale_rewards", SCALES)
@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("temperature", [0.0, 1e-4])
def test_equal_rewards_get_a_target_of_one(temperature, baseline, scale_rewards, dtype):
    options = {"baseline": baseline, "temperature": temperature, "scale_rewards": scale_rewards, **SYMMETRIC}
    for size in (2, 3, 5, 7, 8, 12):
        for reward in (0.0, 1.0, 0.1, 0.3, 0.7, -2.3):
            target = group_target_ratio(torch.full((size,), reward, dtype=dtype), size, **options)
            assert_close(target, [1.0] * size, atol=1e-12 if dtype == torch.float64 else 0.0)


def test_each_scale_divides_by_its_own_standard_deviation():
    # (-1, 0, 1): variance 2/2 = 1; (-3, 0, 3): variance 18/2 = 9; both together, mean 0: (2 + 18)/5 = 4
    rewards = double([-1, 0, 1, -3, 0, 3])
    deviations = {"group": [1, 1, 1, 3, 3, 3], "batch": [2] * 6}
    for scale, deviation in deviations.items():
        target = group_target_ratio(rewards, 3, temperature=1.0, scale_rewards=scale, **SYMMETRIC)
        z = rewards.numpy() / (np.array(deviation) + 1e-6)
        assert_close(target, 0.8 + 0.4 * expit(z))
    target = group_target_ratio(rewards, 3, temperature=1.0, scale_rewards="none", **SYMMETRIC)
    assert_close(target, 0.8 + 0.4 * expit(rewards.numpy()))


@pytest.mark.parametrize("scale_rewards", SCALES)
def test_exact_baseline_is_the_exact_target_of_the_scaled_rewards(scale_rewards):
    rng = np.random.default_rng(3)
    rewards = rng.integers(0, 3, (6, 5)) / 2 + 0.01 * rng.normal(size=(6, 5))
    rewards[0, 1] = rewards[2, 3] = rewards[5, 0] = NAN
    std = {
        "group": np.nanstd(rewards, axis=1, ddof=1, keepdims=True) + 1e-6,
        "batch": np.nanstd(rewards, ddof=1) + 1e-6,
        "none": 1.0,
    }[scale_rewards]
    for temperature in (0.0, 1e-2, 1.0):
        options = {"temperature": temperature, **ASYMMETRIC}
        target = group_target_ratio(
            double(rewards).reshape(-1), 5, baseline="exact", scale_rewards=scale_rewards, **options
        )
        assert target.shape == (30,)
        assert_close(target, exact_target_ratio(double(rewards / std), **options).reshape(-1))
        assert_close(target.reshape(6, 5).mean(-1), [1.0] * 6)


@pytest.mark.parametrize("scale_rewards", SCALES)
def test_exact_baseline_distinguishes_rewards_that_differ_slightly(scale_rewards):
    # total lift 5 · 0.4/0.5 = 4: the three 1s and 2e-9 get 1.1, 1e-9 gets 0.6. After subtracting the median, 1, the
    # two small values would be equal in float32
    rewards = torch.tensor([1.0, 1e-9, 1.0, 2e-9, 1.0], dtype=torch.float32)
    options = {"baseline": "exact", "temperature": 0.0, "scale_rewards": scale_rewards}
    target = group_target_ratio(rewards, 5, epsilon_low=0.4, epsilon_high=0.1, **options)
    assert_close(target, [1.1, 0.6, 1.1, 1.1, 1.1], atol=2e-7)


def test_exact_and_median_targets_agree_without_ties_for_symmetric_bounds():
    rewards = double(np.random.default_rng(4).permutation(24).reshape(3, 8)).reshape(-1)
    options = {"temperature": 0.0, **SYMMETRIC}
    exact = group_target_ratio(rewards, 8, baseline="exact", **options)
    assert_close(exact, group_target_ratio(rewards, 8, baseline="median", **options))
    assert sorted(exact.reshape(3, 8)[0].tolist()) == pytest.approx([0.8] * 4 + [1.2] * 4, rel=0, abs=1e-12)


def test_groups_are_contiguous_and_independent():
    options = {"temperature": 0.3, **ASYMMETRIC}
    first, second = double([0, 1, 5]), double([9, 9, 2])
    together = group_target_ratio(torch.cat([first, second]), 3, **options)
    apart = torch.cat([group_target_ratio(first, 3, **options), group_target_ratio(second, 3, **options)])
    assert torch.equal(together, apart)


def test_a_strided_view_of_rewards_is_accepted():
    table = double([[0, 9], [1, 9], [5, 9], [7, 9]])
    options = {"temperature": 0.3, **ASYMMETRIC}
    assert torch.equal(
        group_target_ratio(table[:, 0], 2, **options), group_target_ratio(double([0, 1, 5, 7]), 2, **options)
    )


def test_group_median_is_the_midpoint_median_of_the_values_present():
    groups = double([[4, 1, 3, 2], [NAN, 5, NAN, 1], [NAN, NAN, NAN, 7], [1, 1, NAN, 9]])
    assert_close(group_median(groups), [[2.5], [3.0], [7.0], [1.0]])
    assert group_median(groups.reshape(2, 2, 4)).shape == (2, 2, 1)
    assert group_median(double([NAN, NAN])).isnan().all()
    assert group_median(torch.tensor([1, 2], dtype=torch.bfloat16)).dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "value", "fix"),
    [
        ({"baseline": "medain"}, "baseline='medain'", "Write one of median, exact, mean."),
        ({"baseline": None}, "baseline=None", "Write one of median, exact, mean."),
        ({"scale_rewards": "std"}, "scale_rewards='std'", "Write one of group, batch, none."),
        ({"scale_rewards": True}, "scale_rewards=True", "Write one of group, batch, none."),
    ],
)
def test_an_unknown_baseline_or_scale_is_refused(options, value, fix):
    with pytest.raises(ValueError) as caught:
        group_target_ratio(torch.zeros(4), 4, **SYMMETRIC, **options)
    assert value in str(caught.value)
    assert fix in str(caught.value)


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize(
    ("shape", "size"), [((6,), 4), ((3,), 4), ((4,), 0), ((4,), -2), ((2, 4), 4), ((), 1)], ids=str
)
def test_rewards_that_do_not_split_into_groups_are_refused(shape, size, baseline):
    with pytest.raises(ValueError) as caught:
        group_target_ratio(torch.zeros(shape), size, baseline=baseline, **SYMMETRIC)
    assert str(shape) in str(caught.value)
    assert f"num_generations={size}" in str(caught.value)
    assert "Pass a vector whose length is a multiple of the group size" in str(caught.value)


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize(("option", "value"), [("epsilon_low", 1.5), ("epsilon_high", 0.0), ("temperature", -1.0)])
def test_every_baseline_checks_bounds_and_temperature(baseline, option, value):
    with pytest.raises(ValueError, match=f"{option}={value} .*Write "):
        of_group(double([0, 1, 0, 1]), baseline=baseline, **{option: value})


def test_the_width_of_the_bounds_is_a_power_of_the_old_probability():
    old = double([1.0, 0.25, 0.01]).log()
    assert_close(bound_width(old, exponent=0.0), [1.0, 1.0, 1.0])
    assert_close(bound_width(old, exponent=0.5), [1.0, 2.0, 10.0])
    assert_close(bound_width(old, exponent=1.0), [1.0, 4.0, 100.0])
    assert bound_width(old.view(3, 1).expand(3, 2), exponent=0.5).shape == (3, 2)
    assert bound_width(torch.tensor([-1.0], dtype=torch.bfloat16), exponent=0.5).dtype == torch.float32
    assert not bound_width(old.requires_grad_(), exponent=0.5).requires_grad


def test_widened_targets_at_hand_computed_points():
    # π0 = 0.25, 0.01 and 0.9, t = 1.2 and 0.8. q = 1: π* = π0 ± 0.2, kept in [0, 1]: 0.45, 0.21, 1 and 0.05, 0, 0.7.
    # q = ½: ρ* = 1 ± 0.2 / √π0: 1.4, 3, and 1 / 0.9 (1.21 would be a probability above 1), and 0.6, 0 (not -1), 0.79
    old, target = double([0.25, 0.01, 0.9]), double([[1.2], [0.8]])
    probable = widened_target_ratio(target, old.log(), exponent=1.0)
    assert_close(probable * old, [[0.45, 0.21, 1.0], [0.05, 0.0, 0.7]])
    half = widened_target_ratio(target, old.log(), exponent=0.5)
    assert_close(half, [[1.4, 3.0, 1 / 0.9], [0.6, 0.0, 1 - 0.2 / math.sqrt(0.9)]])
    assert torch.equal(widened_target_ratio(target, old.log(), exponent=0.0), target)  # as published, also for 0.9


def test_a_target_of_1_stays_1_for_every_width():
    old = torch.tensor([[-200.0, -3.0, 0.0, 1e-3]])  # the last is a log-prob of 0 with a rounding error
    for exponent in (0.0, 0.3, 1.0):
        widened = widened_target_ratio(torch.ones(2, 1), old, exponent=exponent)
        assert torch.equal(widened, torch.ones_like(widened))


def test_widened_targets_of_impossible_tokens_are_finite():
    widened = widened_target_ratio(torch.tensor([1.2, 0.8]), torch.tensor([-1e4, -1e4]), exponent=1.0)
    assert widened.isfinite().all() and widened[0] > 1e30 and widened[1] == 0


@pytest.mark.parametrize("exponent", [-0.1, 1.1, NAN, INF])
def test_an_exponent_outside_0_and_1_is_refused(exponent):
    for function in (bound_width, lambda old, exponent: widened_target_ratio(old, old, exponent=exponent)):
        with pytest.raises(ValueError, match=f"bound_exponent={exponent} .*Write 0 for the published bounds"):
            function(torch.zeros(2), exponent=exponent)
