"""Loss and gradient of one minibatch of BPO against the formulas of the paper, written out for each sample."""

import math

import pytest
import torch
from stable_baselines3.common import policies
from stable_baselines3.common.type_aliases import RolloutBufferSamples

from gbpo.control import BPO, bpo

SAMPLES = 7


@pytest.fixture(autouse=True)
def double(monkeypatch):
    """Keep observations in float64. Stable-Baselines3 casts them to float32, which is too coarse for ten digits."""
    monkeypatch.setattr(policies, "preprocess_obs", lambda observations, *_, **__: observations)


@pytest.fixture
def batch():
    rng = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    return RolloutBufferSamples(
        observations=normal(SAMPLES, 4),
        actions=torch.tensor([0, 1, 1, 0, 1, 0, 0], dtype=torch.float64).unsqueeze(-1),
        old_values=normal(SAMPLES),
        old_log_prob=-0.7 + 0.3 * normal(SAMPLES),
        advantages=normal(SAMPLES),  # from the old critics; the loss must not use them
        returns=3 * normal(SAMPLES),
    )


def agent(**options):
    layers = {"net_arch": [5], "activation_fn": torch.nn.Tanh}
    agent = BPO(
        "MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, seed=0, policy_kwargs=layers, device="cpu", **options
    )
    agent.policy.double()
    torch.manual_seed(1)
    for parameter in agent.policy.parameters():  # the initial policy is uniform, which would hide errors
        torch.nn.init.normal_(parameter, std=0.7)
    return agent


def transcription(agent, batch, low, high):
    """The loss as written in the paper, with softplus(x) = max(x, 0) + log(1 + exp(-|x|))."""
    policy = agent.policy
    total = 0.0
    for i in range(SAMPLES):
        observation = batch.observations[i]
        hidden = torch.tanh(policy.mlp_extractor.policy_net[0](observation))
        logits = policy.action_net(hidden)
        log_probs = logits - logits.exp().sum().log()
        v = policy.value_net(torch.tanh(policy.mlp_extractor.value_net[0](observation)))[0]
        u = policy.median_net[2](torch.tanh(policy.median_net[0](observation)))[0]
        r = batch.returns[i].item()
        baseline = v if agent.target_baseline == "mean" else u
        z = (r - baseline.item()) / agent.temperature
        share = 1 / (1 + math.exp(-z)) if z > -700 else 0.0
        target = (1 - low) + (low + high) * share
        ratio = torch.exp(log_probs[int(batch.actions[i])] - batch.old_log_prob[i])
        entropy = -(log_probs.exp() * log_probs).sum()
        x = r - u
        pull = low / (low + high) if agent.target_baseline == "quantile" else 0.5
        median = x.clamp(min=0) + torch.log1p(torch.exp(-x.abs())) - pull * x
        total = total + abs(r - v.item()) * abs(ratio - target)
        total = total + agent.vf_coef * (r - v) ** 2 - agent.ent_coef * entropy
        if agent.target_baseline != "mean":
            total = total + agent.median_coef * median
    return total / SAMPLES


def gradients(policy, loss):
    policy.zero_grad()
    loss.backward()
    return {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in policy.named_parameters()}


def assert_equal_to_the_transcription(agent, batch, low, high):
    loss = agent.minibatch_loss(batch, low, high).total
    expected = transcription(agent, batch, low, high)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-12)
    found, wanted = gradients(agent.policy, loss), gradients(agent.policy, expected)
    assert sum(float(gradient.abs().sum()) > 0 for gradient in wanted.values()) >= 8
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize(
    ("options", "low", "high"),
    [
        ({}, 0.3, 0.3),
        ({"temperature": 2.0, "ent_coef": 0.1, "vf_coef": 0.7, "median_coef": 0.2}, 0.2, 0.2),
        ({"temperature": 1.0}, 0.2, 0.5),
        ({"temperature": 1.0, "target_baseline": "quantile"}, 0.2, 0.5),
        ({"temperature": 1.0, "target_baseline": "mean"}, 0.3, 0.3),
    ],
)
def test_loss_and_gradient_match_the_paper(options, low, high, batch):
    assert_equal_to_the_transcription(agent(**options), batch, low, high)


def _target_of_the_opposite(centred, **bounds):
    return TARGET(-centred, **bounds)


def _wider(centred, epsilon_low, epsilon_high, temperature):
    return TARGET(centred, epsilon_low=epsilon_low, epsilon_high=epsilon_high + 0.1, temperature=temperature)


def _unweighted(log_ratio, target, advantages):
    return LOSS(log_ratio, target, torch.ones_like(advantages))


def _clipped(log_ratio, target, advantages):
    return LOSS(log_ratio, target, advantages, overshoot_slope=0.0)


def _squared(values, medians, **bounds):
    return 0.5 * (values - medians) ** 2


def _wrong_side(values, medians, **bounds):
    return MEDIAN(medians, values.requires_grad_(False), **bounds)


TARGET, LOSS, MEDIAN = bpo.target_ratio, bpo.bounded_ratio_loss, bpo.median_loss
MUTANTS = [
    ("target_ratio", _target_of_the_opposite),
    ("target_ratio", _wider),
    ("bounded_ratio_loss", _unweighted),
    ("bounded_ratio_loss", _clipped),
    ("median_loss", _squared),
    ("median_loss", _wrong_side),
]


@pytest.mark.parametrize(("name", "mutant"), MUTANTS, ids=lambda value: getattr(value, "__name__", value))
def test_a_mutated_formula_is_detected(name, mutant, batch, monkeypatch):
    monkeypatch.setattr(bpo, name, mutant)
    with pytest.raises(AssertionError):
        assert_equal_to_the_transcription(agent(), batch, 0.3, 0.3)


def test_advantages_come_from_the_current_critics(batch):
    model = agent()
    before = model.minibatch_loss(batch, 0.3, 0.3)
    assert torch.equal(
        model.minibatch_loss(batch._replace(advantages=batch.advantages + 1), 0.3, 0.3).total, before.total
    )
    with torch.no_grad():
        model.policy.value_net.bias += 1
    moved = model.minibatch_loss(batch, 0.3, 0.3)
    assert moved.policy != before.policy and torch.equal(moved.target, before.target)
    with torch.no_grad():
        model.policy.median_net[-1].bias += 3
    assert not torch.equal(model.minibatch_loss(batch, 0.3, 0.3).target, before.target)


@pytest.mark.parametrize("baseline", ["median", "mean"])
def test_the_policy_loss_has_no_gradient_to_the_critics(baseline, batch):
    model = agent(target_baseline=baseline, temperature=5.0)
    found = gradients(model.policy, model.minibatch_loss(batch, 0.3, 0.3).policy)
    assert found["action_net.weight"].abs().sum() > 0
    critics = [g for n, g in found.items() if n.startswith(("value_net", "median_net", "mlp_extractor.value_net"))]
    assert len(critics) == 8 and not any(gradient.any() for gradient in critics)


def test_normalised_advantages_change_the_weights_but_not_the_targets(batch):
    plain, scaled = agent(), agent(normalize_advantage=True)
    values = plain.policy.predict_values(batch.observations).flatten()
    advantages = batch.returns - values
    weights = ((advantages - advantages.mean()) / (advantages.std() + 1e-8)).abs()
    loss = scaled.minibatch_loss(batch, 0.3, 0.3)
    distance = (loss.log_ratio.exp() - loss.target).abs()
    torch.testing.assert_close(loss.policy, (weights * distance).mean())
    assert torch.equal(loss.target, plain.minibatch_loss(batch, 0.3, 0.3).target)


def test_the_change_of_the_value_is_clipped(batch):
    model = agent(clip_range_vf=0.05)
    values = model.policy.predict_values(batch.observations).flatten()
    moved = batch.old_values + (values - batch.old_values).clamp(-0.05, 0.05)
    torch.testing.assert_close(model.minibatch_loss(batch, 0.3, 0.3).value, ((batch.returns - moved) ** 2).mean())


def test_the_loss_is_finite_at_extreme_ratios(batch):
    model = agent()
    loss = model.minibatch_loss(batch._replace(old_log_prob=batch.old_log_prob - 50), 0.3, 0.3).total
    assert math.isfinite(loss.item())
    assert all(gradient.isfinite().all() for gradient in gradients(model.policy, loss).values())
