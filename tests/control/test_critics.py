"""The critics converge to values computed by hand."""

import math

import pytest

from gbpo.control import BPO


def trained_critics(env, **options):
    agent = BPO(
        "MlpPolicy",
        env,
        n_steps=500,
        batch_size=125,
        learning_rate=0.05,
        policy_kwargs={"net_arch": []},
        seed=0,
        **options,
    )
    agent.learn(6000)
    observation = agent.policy.obs_to_tensor(agent.get_env().reset())[0]
    return agent.policy.predict_values(observation).item(), agent.policy.predict_medians(observation).item()


@pytest.mark.slow
def test_the_median_critic_learns_the_median_and_the_value_critic_the_mean(skewed):
    """Returns are 0 with probability 0.6, otherwise 20, so the mean is 8.

    The minimum of the median loss has E[σ(R - u)] = ½:
    0.6 · σ(-u) + 0.4 · 1 = 0.5, σ(-u) = 1/6, u = log 5.
    """
    value, median = trained_critics(skewed)
    assert value == pytest.approx(8.0, abs=0.3)
    assert median == pytest.approx(math.log(5), abs=0.3)


@pytest.mark.slow
def test_the_quantile_critic_follows_the_bounds(skewed):
    """The quantile ε_high / (ε_low + ε_high) = 0.75 lies above 0.6, the share of zeros.

    The minimum of the quantile loss has E[σ(R - u)] = 0.25:
    0.4 · σ(20 - u) = 0.25, σ(20 - u) = 0.625, u = 20 - log(0.625 / 0.375).
    """
    _, quantile = trained_critics(skewed, clip_range=0.2, clip_range_high=0.6, target_baseline="quantile")
    assert quantile == pytest.approx(20 - math.log(0.625 / 0.375), abs=0.3)


def test_the_mean_baseline_does_not_train_the_median_critic(skewed):
    agent = BPO("MlpPolicy", skewed, n_steps=64, target_baseline="mean", seed=0)
    before = [parameter.clone() for parameter in agent.policy.median_net.parameters()]
    agent.learn(64)
    assert all((a == b).all() for a, b in zip(before, agent.policy.median_net.parameters(), strict=True))
