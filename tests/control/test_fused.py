"""The fused networks give the same rollouts, updates and logs as the networks of the policy."""

import copy
import pickle

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

from gbpo.control import BPO
from gbpo.control.policies import MlpPolicy

VECTOR = spaces.Box(-1, 1, (3,), np.float32)
CONTINUOUS, DISCRETE = spaces.Box(-1, 1, (2,), np.float32), spaces.Discrete(3)
SMALL = {"n_steps": 100, "batch_size": 32, "n_epochs": 3, "seed": 0, "device": "cpu", "learning_rate": 1e-3}


def trained(env, fused, *, steps=100, policy="MlpPolicy", **options):
    """A trained agent. A rollout has 100 steps, so its last minibatch has 4."""
    policy_kwargs = {"net_arch": [16, 8], **options.pop("policy_kwargs", {})}
    agent = BPO(policy, env, **{**SMALL, **options}, policy_kwargs=policy_kwargs, fused=fused)
    return agent.learn(steps)


def was_fused(agent):
    return agent.policy.fuse(with_median=agent.target_baseline != "mean") is not None


def log(agent):
    return {name: value for name, value in agent.logger.name_to_value.items() if name.startswith("train/")}


def assert_equal(plain, fused, tolerance):
    baseline = fused.target_baseline
    np.testing.assert_allclose(fused.rollout_buffer.actions, plain.rollout_buffer.actions, atol=tolerance)
    for name, tensor in plain.policy.state_dict().items():
        torch.testing.assert_close(fused.policy.state_dict()[name], tensor, rtol=0, atol=tolerance, msg=name)
    wanted, found = (
        {n: a.policy.optimizer.state.get(p) for n, p in a.policy.named_parameters()} for a in (plain, fused)
    )
    for name, state in wanted.items():
        assert (state is None) == (found[name] is None) == (name.startswith("median") and baseline == "mean"), name
        for entry in state or ():
            torch.testing.assert_close(found[name][entry], state[entry], rtol=1e-4, atol=tolerance, msg=name)
    assert log(fused) == pytest.approx(log(plain), rel=1e-4, abs=tolerance)


@pytest.mark.parametrize("action_space", [CONTINUOUS, DISCRETE], ids=["Box", "Discrete"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"target_baseline": "quantile", "clip_range_high": 0.6, "policy_kwargs": {"activation_fn": torch.nn.Tanh}},
        {"target_baseline": "mean", "ent_coef": 0.01},
        {"normalize_advantage": True, "clip_range_vf": 0.2, "max_grad_norm": 0.1, "ent_coef": 0.01, "temperature": 0.5},
        {"policy_kwargs": {"net_arch": []}},
        {"policy_kwargs": {"optimizer_kwargs": {"weight_decay": 0.1, "betas": (0.8, 0.9)}}},
    ],
    ids=["default", "quantile", "mean", "options", "linear", "optimizer"],
)
def test_one_rollout_equals_that_of_the_plain_networks(action_space, options, random_env):
    def envs():  # the space draws the observations, so each agent needs spaces of its own
        return make_vec_env(lambda: random_env(spaces.Box(-1, 1, (3,), np.float32, seed=0), action_space), 2)

    plain, fused = (trained(envs(), fused, steps=200, **options) for fused in (False, True))
    assert was_fused(fused)
    assert_equal(plain, fused, tolerance=1e-5)


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_two_rollouts_take_the_same_actions(env):
    plain, fused = (trained(env, fused, steps=200) for fused in (False, True))
    assert_equal(plain, fused, tolerance=1e-4)


def test_training_may_switch_between_fused_and_plain_networks(tmp_path):
    """The moments and the number of steps of Adam go with the weights, also through a file."""
    plain, fused = (trained("Pendulum-v1", fused) for fused in (False, True))
    fused.fused = False
    fused.save(tmp_path / "agent")
    loaded = BPO.load(tmp_path / "agent", fused=True)
    assert loaded.fused and not BPO.load(tmp_path / "agent").fused
    for one, other in [(plain, fused), (plain, loaded)]:
        before = {id(agent): torch.nn.utils.parameters_to_vector(agent.policy.parameters()) for agent in (one, other)}
        torch.testing.assert_close(before[id(other)], before[id(one)], rtol=0, atol=1e-5)
    agents = []
    for agent in (plain, fused, loaded):
        agent.set_env(make_vec_env("Pendulum-v1", 1, seed=5))
        agent.set_random_seed(5)
        agents.append(agent.learn(100, reset_num_timesteps=False))
    for agent in agents[1:]:
        assert_equal(agents[0], agent, tolerance=1e-4)


def test_the_kl_divergence_stops_both_at_the_same_minibatch():
    plain, fused = (trained("CartPole-v1", fused, target_kl=1e-5, n_epochs=10) for fused in (False, True))
    assert plain._n_updates == fused._n_updates < 10
    assert_equal(plain, fused, tolerance=1e-5)


class Derived(MlpPolicy):
    pass


class DerivedLoss(BPO):
    def minibatch_loss(self, batch, epsilon_low, epsilon_high):
        return super().minibatch_loss(batch, epsilon_low, epsilon_high)


@pytest.mark.parametrize(
    ("observation_space", "action_space", "options"),
    [
        (spaces.Discrete(4), DISCRETE, {}),
        (spaces.Box(-1, 1, (2, 2), np.float32), DISCRETE, {}),
        (VECTOR, spaces.MultiDiscrete([2, 3]), {}),
        (VECTOR, spaces.MultiBinary(2), {}),
        (VECTOR, spaces.Box(-1, 1, (2, 2), np.float32), {}),
        (VECTOR, spaces.Box(-1, 1, (), np.float32), {}),
        (VECTOR, CONTINUOUS, {"use_sde": True}),
        (VECTOR, CONTINUOUS, {"policy": Derived}),
        (VECTOR, CONTINUOUS, {"policy_kwargs": {"net_arch": {"pi": [8], "vf": [6]}}}),
        (VECTOR, CONTINUOUS, {"policy_kwargs": {"activation_fn": torch.nn.ELU}}),
        (VECTOR, CONTINUOUS, {"policy_kwargs": {"optimizer_class": torch.optim.SGD}}),
        (VECTOR, CONTINUOUS, {"policy_kwargs": {"optimizer_kwargs": {"amsgrad": True}}}),
    ],
)
def test_what_cannot_be_fused_runs_as_before(observation_space, action_space, options, random_env):
    agent = trained(random_env(observation_space, action_space), True, **options)
    assert agent._n_updates == 3 and not was_fused(agent)


def test_layers_that_were_added_are_not_left_out(random_env):
    agent = BPO("MlpPolicy", random_env(VECTOR, CONTINUOUS), **SMALL)
    assert was_fused(agent)
    agent.policy.median_net.insert(1, torch.nn.LayerNorm(256))
    assert not was_fused(agent)


@pytest.mark.parametrize("kind", ["forward", "gradient"])
def test_hooks_are_called(kind, random_env):
    calls = []
    agent = BPO("MlpPolicy", random_env(VECTOR, CONTINUOUS), **SMALL)
    assert was_fused(agent)
    if kind == "forward":
        agent.policy.value_net.register_forward_hook(lambda *found: calls.append(None))
    else:
        agent.policy.value_net.weight.register_hook(lambda gradient: calls.append(None))
    assert not was_fused(agent)
    agent.learn(100)
    assert len(calls) >= 12  # the minibatches


def test_weights_that_the_optimiser_does_not_have_are_not_trained(random_env):
    agent = BPO("MlpPolicy", random_env(VECTOR, CONTINUOUS), **SMALL)
    before = agent.policy.log_std.clone()
    others = [parameter for parameter in agent.policy.parameters() if parameter is not agent.policy.log_std]
    agent.policy.optimizer = torch.optim.Adam(others, lr=1e-3)
    agent.learn(100)
    assert torch.equal(agent.policy.log_std, before)


class Change(BaseCallback):
    """Halves the weights at the start of a rollout, and loads other weights in its middle."""

    def _on_rollout_start(self):
        with torch.no_grad():
            for parameter in self.model.policy.parameters():
                parameter.mul_(0.5)

    def _on_step(self):
        if self.n_calls == 20:
            self.model.policy.load_state_dict({n: 3 * t for n, t in self.model.policy.state_dict().items()})
        return True


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_weights_that_a_callback_changes_are_used_at_once(env):
    plain, fused = (
        BPO("MlpPolicy", env, **SMALL, policy_kwargs={"net_arch": [16, 8]}, fused=fused).learn(100, Change())
        for fused in (False, True)
    )
    assert_equal(plain, fused, tolerance=1e-5)


def test_a_copy_made_during_a_rollout_runs_its_own_networks(random_env):
    class Copy(BaseCallback):
        def _on_step(self):
            if self.n_calls == 5:
                self.copies = [copy.deepcopy(self.model.policy), pickle.loads(pickle.dumps(self.model.policy))]
            return True

    callback = Copy()
    agent = BPO("MlpPolicy", random_env(VECTOR, CONTINUOUS), **SMALL).learn(100, callback)
    for policy in callback.copies:
        policy.load_state_dict(agent.policy.state_dict())
        observations = torch.ones(2, 3)
        torch.testing.assert_close(policy(observations)[1], agent.policy(observations)[1])


def test_callbacks_can_read_the_gradient_of_the_last_minibatch():
    plain, fused = (trained("Pendulum-v1", fused) for fused in (False, True))
    for name, parameter in plain.policy.named_parameters():
        torch.testing.assert_close(fused.policy.get_parameter(name).grad, parameter.grad, rtol=1e-4, atol=1e-7)


def test_layers_without_bias_run_as_before(random_env):
    agent = BPO("MlpPolicy", random_env(VECTOR, CONTINUOUS), **SMALL)
    agent.policy.value_net = torch.nn.Linear(256, 1, bias=False)
    agent.policy.optimizer = torch.optim.Adam(agent.policy.parameters(), lr=1e-3)
    agent.learn(100)
    assert agent._n_updates == 3 and not was_fused(agent)


def test_a_derived_loss_gets_the_networks_of_the_policy(random_env):
    agent = DerivedLoss("MlpPolicy", random_env(VECTOR, CONTINUOUS), **SMALL)
    with agent._fused_policy(with_median=True) as networks:
        assert networks is None
    agent.learn(100)


def test_the_fused_networks_are_used_and_leave_the_policy(random_env):
    """Outside of rollouts and updates the policy runs its own networks, which have the new weights."""
    used = []

    class Watch(BaseCallback):
        def _on_step(self):
            used.append(self.model.policy.fused is not None)
            return True

    agent = BPO("MlpPolicy", random_env(VECTOR, CONTINUOUS), **SMALL)
    agent.learn(100, Watch())
    assert used == [True] * 100 and agent.policy.fused is None
    agent.fused = False
    agent.learn(100, Watch())
    assert not any(used[100:])


def test_weights_that_are_not_finite_end_the_run_with_one_line(random_env):
    agent = BPO("MlpPolicy", random_env(VECTOR, CONTINUOUS), **{**SMALL, "learning_rate": 1e-3})
    before = {name: tensor.clone() for name, tensor in agent.policy.state_dict().items()}
    agent.vf_coef = float("inf")
    with pytest.raises(ValueError, match="weights infinite or NaN.*Lower learning_rate"):
        agent.learn(100)
    assert all(torch.equal(tensor, before[name]) for name, tensor in agent.policy.state_dict().items())
