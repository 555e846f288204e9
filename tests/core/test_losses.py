"""The bounded-ratio loss and the median loss: values and gradients against independent plain-Python formulas."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from gbpo.core import bounded_ratio_loss, median_loss, target_ratio, widened_target_ratio

NAN = math.nan
INF = math.inf
LOG_RATIOS = [-3.0, -1.0, -0.5, -0.3, -0.05, -0.004, 0.003, 0.05, 0.15, 0.3, 0.6, 2.0]
TARGETS = [0.0, 0.7, 0.8, 0.99, 1.0, 1.01, 1.2, 1.28, 5.0]
ADVANTAGES = [-2.5, -0.3, 0.0, 0.7, 1.0]
SLOPES = [0.0, 0.2, 1.0, 2.0]
BOUNDS = [(0.2, 0.2), (0.2, 0.28), (0.5, 0.1), (1.0, 3.0)]

check = settings(max_examples=150, deadline=None, derandomize=True)
# without tiny values, whose products have fewer digits because they are subnormal
any_advantage = st.floats(-1e3, 1e3).filter(lambda advantage: advantage == 0 or abs(advantage) > 1e-200)


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def assert_close(actual, expected, atol=1e-14, rtol=1e-13):
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype), rtol=rtol, atol=atol)


def loss_and_gradient(log_ratio, *others, loss=bounded_ratio_loss, **options):
    """The loss, and its gradient with respect to the first argument."""
    log_ratio = log_ratio.detach().clone().requires_grad_()
    value = loss(log_ratio, *others, **options)
    (gradient,) = torch.autograd.grad(value.sum(), log_ratio)
    return value.detach(), gradient


# ---------------------------------------------------------------------------------------------------------------------
# bounded_ratio_loss
# ---------------------------------------------------------------------------------------------------------------------


def test_bounded_ratio_loss_at_hand_computed_points():
    # ratios 1/2 and 3/2, for each of the targets 1.2, 0.8 and 1
    log_ratio = double([0.5, 1.5, 0.5, 1.5, 0.5, 1.5]).log()
    target = double([1.2, 1.2, 0.8, 0.8, 1.0, 1.0])
    advantage = double([2.0, 2.0, -3.0, -3.0, -1.0, 4.0])
    # |A| |ρ - ρ*|: 2 · 0.7, 2 · 0.3 (past the target), 3 · 0.3 (past the target), 3 · 0.7, 1 · 0.5, 4 · 0.5
    # dl/d log ρ = ± |A| ρ: -2 · 0.5, 2 · 1.5, -3 · 0.5, 3 · 1.5, -1 · 0.5, 4 · 1.5
    loss, gradient = loss_and_gradient(log_ratio, target, advantage)
    assert_close(loss, [1.4, 0.6, 0.9, 2.1, 0.5, 2.0])
    assert_close(gradient, [-1.0, 3.0, -1.5, 4.5, -0.5, 6.0])
    # the second and third ratio are past their target, so they get a quarter of loss and gradient
    loss, gradient = loss_and_gradient(log_ratio, target, advantage, overshoot_slope=0.25)
    assert_close(loss, [1.4, 0.15, 0.225, 2.1, 0.5, 2.0])
    assert_close(gradient, [-1.0, 0.75, -0.375, 4.5, -0.5, 6.0])


def transcribed(log_ratio, target, advantage, slope):
    """Loss and gradient of one element: with e = (ρ - ρ*) · sign(ρ* - 1), |A| · (-e) if e ≤ 0, else |A| · slope · e."""
    ratio, weight = math.exp(log_ratio), abs(advantage)
    if target == 1.0:
        return weight * abs(ratio - 1), weight * math.copysign(ratio, ratio - 1)
    away = math.copysign(1.0, target - 1)
    excess = (ratio - target) * away
    if excess <= 0:
        return weight * -excess, -weight * away * ratio
    return weight * slope * excess, weight * slope * away * ratio


@pytest.mark.parametrize("slope", SLOPES)
def test_bounded_ratio_loss_and_gradient_match_a_plain_transcription(slope):
    grid = [(x, target, advantage) for x in LOG_RATIOS for target in TARGETS for advantage in ADVANTAGES]
    expected_loss, expected_gradient = zip(*(transcribed(*point, slope) for point in grid), strict=True)
    loss, gradient = loss_and_gradient(*map(double, zip(*grid, strict=True)), overshoot_slope=slope)
    assert_close(loss, expected_loss)
    assert_close(gradient, expected_gradient)


def test_bounded_ratio_loss_defaults_to_the_published_loss():
    log_ratio, target, advantage = torch.meshgrid(
        double(LOG_RATIOS), double(TARGETS), double(ADVANTAGES), indexing="ij"
    )
    published = advantage.abs() * (log_ratio.exp() - target).abs()
    assert torch.equal(bounded_ratio_loss(log_ratio, target, advantage), published)
    assert torch.equal(bounded_ratio_loss(log_ratio, target, advantage, overshoot_slope=1.0), published)


@pytest.mark.parametrize("slope", SLOPES)
def test_bounded_ratio_loss_passes_gradcheck(slope):
    log_ratio = (
        double(LOG_RATIOS).repeat(len(TARGETS), 1).requires_grad_()
    )  # the nearest kink is 0.003 away, and the step is 1e-6
    target = double(TARGETS).unsqueeze(-1)
    advantage = torch.linspace(-2.0, 3.0, log_ratio.numel(), dtype=torch.float64).view_as(log_ratio)
    assert torch.autograd.gradcheck(
        lambda x: bounded_ratio_loss(x, target, advantage, overshoot_slope=slope), log_ratio
    )


@pytest.mark.parametrize(("low", "high"), [(0.2, 0.2), (0.2, 0.28), (0.5, 0.1), (0.9, 3.0)])
def test_without_overshoot_slope_the_gradient_equals_that_of_the_clipped_loss(low, high):
    log_ratio = torch.cat([double(LOG_RATIOS), double([-15.0, -8.0, 5.0, 15.0])]).unsqueeze(-1)
    advantage = double(ADVANTAGES)

    def clipped_loss(log_ratio):  # PPO: -min(ρ A, clip(ρ, 1 - ε_low, 1 + ε_high) A)
        ratio = log_ratio.exp()
        return -torch.min(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)

    hard = double([1 + high if a > 0 else 1 - low if a < 0 else 1.0 for a in ADVANTAGES])  # 1 + ε · sign(A)
    computed = target_ratio(advantage, epsilon_low=low, epsilon_high=high, temperature=0.0)
    _, expected = loss_and_gradient(log_ratio.expand(-1, len(ADVANTAGES)), loss=clipped_loss)
    assert (expected == 0).any(dim=0)[[0, -1]].all()  # the clipped loss is flat somewhere on both sides
    for target in (hard, computed):
        _, gradient = loss_and_gradient(log_ratio.expand(-1, len(ADVANTAGES)), target, advantage, overshoot_slope=0.0)
        assert torch.equal(gradient, expected)
    # the losses are equal too, except for a constant: compare their differences from ρ = 1
    start = bounded_ratio_loss(double([0.0]), hard, advantage, overshoot_slope=0.0)
    loss = bounded_ratio_loss(log_ratio, hard, advantage, overshoot_slope=0.0)
    assert_close(loss - start, clipped_loss(log_ratio) - clipped_loss(double([0.0])), rtol=1e-12)


@pytest.mark.parametrize(("low", "high"), [(0.2, 0.2), (0.15, 0.3)])
def test_with_bounds_on_the_probability_the_gradient_equals_that_of_dppo(low, high):
    """DPPO masks a token whose probability has moved too far in the direction of its advantage.

    No difference of two of these probabilities is exactly a bound.
    """
    old, new = torch.meshgrid(*[double([0.001, 0.1, 0.13, 0.22, 0.51, 0.69, 0.75, 0.99])] * 2, indexing="ij")
    for advantage in double([-2.0, -0.1, 0.3, 1.5]):
        mask = (new - old > high) if advantage > 0 else (new - old < -low)
        expected = torch.where(mask, 0.0, -advantage * new / old)
        target = target_ratio(advantage, epsilon_low=low, epsilon_high=high, temperature=0.0)
        target = widened_target_ratio(target, old.log(), exponent=1.0)
        _, gradient = loss_and_gradient((new / old).log(), target, advantage, overshoot_slope=0.0)
        assert mask.any() and not mask.all()
        assert_close(gradient, expected, rtol=1e-6)


@check
@given(st.floats(-15, 15), st.floats(0, 9), any_advantage, st.floats(0, 5))
def test_bounded_ratio_loss_matches_the_transcription_for_any_input(log_ratio, target, advantage, slope):
    loss = bounded_ratio_loss(double([log_ratio]), double([target]), double([advantage]), overshoot_slope=slope)
    scale = abs(advantage) * (math.exp(log_ratio) + target) * max(slope, 1.0)
    assert_close(loss, [transcribed(log_ratio, target, advantage, slope)[0]], atol=1e-15 * scale, rtol=0)


@check
@given(st.floats(-15, 15), st.floats(0, 9), st.floats(-1e3, 1e3), st.floats(0, 5))
def test_bounded_ratio_loss_is_never_negative_and_zero_at_its_target(log_ratio, target, advantage, slope):
    assert bounded_ratio_loss(double([log_ratio]), double([target]), double([advantage]), overshoot_slope=slope) >= 0
    at_target = double([log_ratio]).exp()
    assert bounded_ratio_loss(double([log_ratio]), at_target, double([advantage]), overshoot_slope=slope) == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("slope", SLOPES)
def test_bounded_ratio_loss_is_finite_and_flat_at_extreme_log_ratios(dtype, slope):
    log_ratio = torch.tensor([50.0, 1e4, INF, -50.0, -1e4, -INF], dtype=dtype)
    for target in (0.0, 0.8, 1.0, 1.2):
        for advantage in (-3.0, 0.0, 2.0):
            others = torch.tensor([target], dtype=dtype), torch.tensor([advantage], dtype=dtype)
            loss, gradient = loss_and_gradient(log_ratio, *others, overshoot_slope=slope)
            target_value = others[0].item()  # rounded to the dtype
            ends = [transcribed(sign * 20.0, target_value, advantage, slope)[0] for sign in (1, -1)]
            assert_close(loss, [ends[0]] * 3 + [ends[1]] * 3, rtol=1e-13 if dtype == torch.float64 else 5e-7)
            assert torch.equal(gradient, torch.zeros_like(log_ratio))


def test_bounded_ratio_loss_is_finite_at_the_widest_clamp():
    others = torch.tensor([1.2]), torch.tensor([1e3])
    loss, gradient = loss_and_gradient(torch.tensor([79.9, 81.0, INF, -INF]), *others, max_log_ratio=80.0)
    assert loss.isfinite().all()
    assert_close(loss[1:], [1e3 * math.exp(80), 1e3 * math.exp(80), 1.2e3], rtol=5e-7)
    # float32 rounds 79.9 by up to 4e-6, so exp(79.9) has a relative error of 4e-6
    assert_close(gradient, [1e3 * math.exp(79.9), 0.0, 0.0, 0.0], rtol=1e-5)


def test_beyond_the_clamp_the_loss_is_constant_and_the_gradient_zero():
    others = double([1.2]), double([-2.0])
    loss, gradient = loss_and_gradient(double([-9.0, -1.51, -1.49, 1.49, 1.51, 9.0]), *others, max_log_ratio=1.5)
    low, high = 2 * (1.2 - math.exp(-1.5)), 2 * (math.exp(1.5) - 1.2)
    assert_close(loss[[0, 1, 4, 5]], [low, low, high, high])
    assert_close(gradient, [0.0, 0.0, -2 * math.exp(-1.49), 2 * math.exp(1.49), 0.0, 0.0])
    # the default is 20
    loss, gradient = loss_and_gradient(double([-20.1, -19.9, 19.9, 20.1]), *others)
    assert_close(loss, [2 * abs(math.exp(x) - 1.2) for x in (-20.0, -19.9, 19.9, 20.0)])
    assert_close(gradient, [0.0, -2 * math.exp(-19.9), 2 * math.exp(19.9), 0.0])


def test_bounded_ratio_loss_gives_no_gradient_to_target_or_advantages():
    log_ratio, target, advantage = (double([value]).requires_grad_() for value in (0.1, 1.2, -0.7))
    bounded_ratio_loss(log_ratio, target, advantage, overshoot_slope=0.5).sum().backward()
    assert target.grad is None
    assert advantage.grad is None
    assert_close(log_ratio.grad, [-0.7 * math.exp(0.1)])
    assert not bounded_ratio_loss(log_ratio.detach(), target, advantage).requires_grad


@pytest.mark.parametrize("slope", SLOPES)
def test_bounded_ratio_loss_broadcasts_tokens_with_completions(slope):
    log_ratio = double(LOG_RATIOS).view(3, 4)
    target, advantage = double([[0.8], [1.0], [1.2]]), double([[-2.0], [0.3], [1.0]])
    loss, gradient = loss_and_gradient(log_ratio, target, advantage, overshoot_slope=slope)
    assert loss.shape == gradient.shape == (3, 4)
    for i in range(3):
        for j in range(4):
            element = double([log_ratio[i, j].item()]), target[i], advantage[i]
            expected_loss, expected_gradient = loss_and_gradient(*element, overshoot_slope=slope)
            assert_close(loss[i, j], expected_loss[0])
            assert_close(gradient[i, j], expected_gradient[0])
    # one ratio per sequence, one target per token: the gradient sums over the tokens
    loss, gradient = loss_and_gradient(log_ratio[:, :1], target.expand(3, 4), advantage, overshoot_slope=slope)
    assert loss.shape == (3, 4)
    assert_close(gradient, 4 * loss_and_gradient(log_ratio[:, :1], target, advantage, overshoot_slope=slope)[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_bounded_ratio_loss_computes_at_least_in_float32(dtype):
    log_ratio = torch.tensor(LOG_RATIOS, dtype=dtype)
    target, advantage = torch.tensor([1.2], dtype=dtype), torch.tensor([-0.7], dtype=dtype)
    loss, gradient = loss_and_gradient(log_ratio, target, advantage, overshoot_slope=0.2)
    wide = torch.promote_types(dtype, torch.float32)
    expected = loss_and_gradient(log_ratio.to(wide), target.to(wide), advantage.to(wide), overshoot_slope=0.2)
    assert loss.dtype == wide
    assert gradient.dtype == dtype
    assert torch.equal(loss, expected[0])
    assert torch.equal(gradient, expected[1].to(dtype))


def test_one_float64_argument_makes_the_loss_float64():
    arguments = [torch.tensor([0.5]), torch.tensor([1.25]), torch.tensor([2.0])]
    for wide in range(3):
        mixed = [argument.double() if i == wide else argument for i, argument in enumerate(arguments)]
        assert bounded_ratio_loss(*mixed, overshoot_slope=0.2).dtype == torch.float64


@pytest.mark.parametrize("setting", [torch.bfloat16, torch.float64])
def test_the_losses_do_not_depend_on_torch_s_default_dtype(setting):
    def losses():
        x, one = torch.tensor([-1.0, 0.3], dtype=torch.float32), torch.ones(1, dtype=torch.float32)
        bounded = bounded_ratio_loss(x, 1.1 * one, 0.7 * one, overshoot_slope=0.3)
        return bounded, median_loss(x, one, temperature=0.3, epsilon_low=0.3, epsilon_high=0.4)

    before, expected = torch.get_default_dtype(), losses()
    torch.set_default_dtype(setting)
    try:
        actual = losses()
    finally:
        torch.set_default_dtype(before)
    assert all(torch.equal(*pair) for pair in zip(actual, expected, strict=True))
    assert all(loss.dtype == torch.float32 for loss in actual)


@pytest.mark.parametrize(
    ("option", "value", "fix"),
    [
        *[
            ("overshoot_slope", value, "Write 0 for a flat loss past the target, 1 for the published loss")
            for value in (-0.1, NAN, INF)
        ],
        *[
            ("max_log_ratio", value, "Write a value in (0, 80], for example 20")
            for value in (0.0, -1.0, 80.5, NAN, INF)
        ],
    ],
)
def test_an_invalid_loss_option_is_refused(option, value, fix):
    with pytest.raises(ValueError) as caught:
        bounded_ratio_loss(double([0.0]), double([1.2]), double([1.0]), **{option: value})
    assert f"{option}={value} " in str(caught.value)
    assert fix in str(caught.value)


# ---------------------------------------------------------------------------------------------------------------------
# median_loss
# ---------------------------------------------------------------------------------------------------------------------

EXCESSES = [-1e6, -700.0, -30.0, -2.0, -0.1, -1e-9, 0.0, 1e-9, 0.1, 2.0, 30.0, 700.0, 1e6]


def test_median_loss_at_hand_computed_points():
    # softplus(0) = ln 2; softplus(ln 3) - ln 3 / 2 = ln 4 - ln 3 / 2 = ln(4/√3), and the same at -ln 3
    values, medians = double([5.0, math.log(3), 1.0]), double([5.0, 0.0, 1 + math.log(3)])
    expected = [math.log(2), math.log(4 / math.sqrt(3)), math.log(4 / math.sqrt(3))]
    assert_close(median_loss(values, medians), expected)
    # τ = 2 doubles the loss of half the excess
    doubled = median_loss(2 * values, 2 * medians, temperature=2.0)
    assert_close(doubled, [2 * loss for loss in expected])
    # low 0.2, high 0.3: fraction 0.2/0.5 = 0.4: softplus(±ln 3) ∓ 0.4 ln 3 = ln 4 - 0.4 ln 3, ln(4/3) + 0.4 ln 3
    loss = median_loss(double([math.log(3), -math.log(3)]), double([0, 0]), epsilon_low=0.2, epsilon_high=0.3)
    assert_close(loss, [math.log(4) - 0.4 * math.log(3), math.log(4 / 3) + 0.4 * math.log(3)])


def test_median_loss_is_a_smooth_half_of_the_absolute_value():
    excess = np.array(EXCESSES)
    loss = median_loss(double(EXCESSES), double([0.0]))
    assert_close(loss, np.logaddexp(excess, 0) - excess / 2, rtol=1e-15)
    assert_close(loss, np.log1p(np.exp(-abs(excess))) + abs(excess) / 2, rtol=1e-15)


def transcribed_median(excess, temperature, fraction):
    """τ softplus(x / τ) - fraction · x and its derivative with respect to u = R - x. At τ = 0 the pinball loss."""
    if temperature == 0:
        share = 1.0 if excess > 0 else 0.0
        smooth = max(excess, 0.0)
    else:
        z = excess / temperature
        tail = math.exp(-abs(z)) if abs(z) < 700 else 0.0
        share = 1 / (1 + tail) if z >= 0 else tail / (1 + tail)
        smooth = max(excess, 0.0) + temperature * math.log1p(tail)
    return smooth - fraction * excess, fraction - share


@pytest.mark.parametrize(("low", "high"), [*BOUNDS, (1.0, 1.0)])
@pytest.mark.parametrize("temperature", [0.0, 1e-4, 0.3, 1.0, 10.0])
def test_median_loss_and_gradient_match_a_plain_transcription(temperature, low, high):
    excesses = [x for x in EXCESSES if x != 0 or temperature > 0]  # the loss has a kink there at τ = 0
    medians = double(np.linspace(-1, 1, len(excesses)))
    values = medians + double(excesses)
    expected_loss, expected_gradient = zip(
        *(transcribed_median(x, temperature, low / (low + high)) for x in (values - medians).tolist()), strict=True
    )
    loss, gradient = loss_and_gradient(
        medians,
        loss=lambda u: median_loss(values, u, temperature=temperature, epsilon_low=low, epsilon_high=high),
    )
    assert_close(loss, expected_loss)
    assert_close(gradient, expected_gradient)


@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_median_loss_passes_gradcheck(temperature):
    medians = torch.linspace(-3, 3, 11, dtype=torch.float64).requires_grad_()
    options = {"temperature": temperature, "epsilon_low": 0.2, "epsilon_high": 0.28}
    assert torch.autograd.gradcheck(lambda u: median_loss(double([0.5]), u, **options), medians)


@pytest.mark.parametrize(("low", "high"), BOUNDS)
def test_median_loss_tends_to_the_pinball_loss_as_the_temperature_falls(low, high):
    quantile = high / (low + high)
    excess = np.linspace(-2, 2, 41)
    bounds = {"epsilon_low": low, "epsilon_high": high}
    pinball = median_loss(double(excess), double([0.0]), temperature=0.0, **bounds)
    assert_close(pinball, np.maximum(quantile * excess, (quantile - 1) * excess), atol=1e-15)
    # 0 ≤ τ softplus(x / τ) - max(x, 0) ≤ τ ln 2, with equality on the right at x = 0
    for temperature in (1.0, 1e-2, 1e-6):
        gap = median_loss(double(excess), double([0.0]), temperature=temperature, **bounds) - pinball
        assert gap.min() >= -1e-15
        assert gap.max().item() == pytest.approx(temperature * math.log(2), rel=1e-9)


def minimiser(sample, temperature, low, high):
    """The u at which the mean loss of the sample has slope 0."""

    def slope(u):
        u = double([u]).requires_grad_()
        loss = median_loss(sample, u, temperature=temperature, epsilon_low=low, epsilon_high=high).mean()
        return torch.autograd.grad(loss, u)[0].item()

    return brentq(slope, sample.min().item() - 50, sample.max().item() + 50, xtol=1e-14, rtol=1e-14)


@pytest.mark.parametrize(("low", "high"), BOUNDS)
def test_the_minimiser_tends_to_the_quantile_at_which_the_mean_target_is_one(low, high):
    sample = double(np.random.default_rng(0).gamma(2.0, size=101))  # skewed, so mean and median differ
    quantile = high / (low + high)
    # the order statistic with at most quantile · 101 values below and at most (1 - quantile) · 101 values above it
    limit = sample.sort().values[math.floor(quantile * 101)].item()
    distances = [abs(minimiser(sample, temperature, low, high) - limit) for temperature in (1.0, 0.1, 1e-3, 1e-5)]
    assert distances[0] > 10 * distances[2] > 0
    assert distances[2] < 0.01
    assert distances[3] < 1e-4
    for temperature in (0.1, 1.0):
        centred = sample - minimiser(sample, temperature, low, high)
        target = target_ratio(centred, epsilon_low=low, epsilon_high=high, temperature=temperature)
        assert target.mean().item() == pytest.approx(1.0, rel=0, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("temperature", [0.0, 1e-45, 1e-40, 1e-36, 1e-4, 1.0, 1e6])
def test_median_loss_is_finite_far_from_the_median_at_any_temperature(temperature, dtype):
    values = torch.tensor([1e6, -1e6, 1.0, -1.0], dtype=dtype)
    loss, gradient = loss_and_gradient(
        torch.zeros(4, dtype=dtype), loss=lambda u: median_loss(values, u, temperature=temperature)
    )
    expected = [transcribed_median(x, temperature, 0.5) for x in values.tolist()]
    rounding = 1e-14 if dtype == torch.float64 else 2e-7
    assert_close(loss, [loss for loss, _ in expected], rtol=rounding)
    assert_close(gradient, [gradient for _, gradient in expected], rtol=rounding, atol=rounding)


@pytest.mark.parametrize("temperature", [1e-45, 1e-4, 1.0])
def test_median_loss_at_the_median_is_the_temperature_times_ln_2(temperature):
    loss = median_loss(torch.tensor([3.0]), torch.tensor([3.0]), temperature=temperature)
    assert_close(loss, [temperature * math.log(2)], rtol=2e-7, atol=1e-44)


def test_median_loss_gives_no_gradient_to_the_values():
    values, medians = double([2.0]).requires_grad_(), double([2.0]).requires_grad_()
    median_loss(values, medians).sum().backward()
    assert values.grad is None
    assert_close(medians.grad, [0.0])  # ½ - σ(0)
    assert not median_loss(values, medians.detach()).requires_grad


@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_median_loss_computes_at_least_in_float32(dtype, temperature):
    values, medians = torch.tensor([1.5, -0.3, 300.0], dtype=dtype), torch.tensor([0.1, 0.2, 0.3], dtype=dtype)
    wide = torch.promote_types(dtype, torch.float32)
    loss = median_loss(values, medians, temperature=temperature)
    assert loss.dtype == wide
    assert torch.equal(loss, median_loss(values.to(wide), medians.to(wide), temperature=temperature))


@pytest.mark.parametrize(
    ("option", "value", "fix"),
    [
        *[("epsilon_low", value, "Write a value in (0, 1], for example 0.2") for value in (0.0, -0.1, 1.01, NAN, INF)],
        *[("epsilon_high", value, "Write a positive value, for example 0.2") for value in (0.0, -0.1, NAN, INF)],
        *[("temperature", value, "Write 0 for a hard target, or a positive number") for value in (-1e-4, NAN, INF)],
    ],
)
def test_an_invalid_median_loss_option_is_refused(option, value, fix):
    with pytest.raises(ValueError) as caught:
        median_loss(double([0.0]), double([1.0]), **{option: value})
    assert f"{option}={value} " in str(caught.value)
    assert fix in str(caught.value)
