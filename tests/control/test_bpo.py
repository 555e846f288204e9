"""BPO as a Stable-Baselines3 algorithm: it supports everything that PPO supports."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import NatureCNN
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecNormalize

from gbpo.control import BPO
from gbpo.control.policies import MedianCritic

VECTOR = spaces.Box(-1, 1, (3,), np.float32)
IMAGE = spaces.Box(0, 255, (36, 36, 1), np.uint8)
ACTIONS = {
    "Box": spaces.Box(-1, 1, (2,), np.float32),
    "Discrete": spaces.Discrete(3),
    "MultiDiscrete": spaces.MultiDiscrete([2, 3]),
    "MultiBinary": spaces.MultiBinary(2),
}
SMALL = {"n_steps": 16, "batch_size": 8, "n_epochs": 2, "seed": 0, "device": "cpu"}


def small_net(**more):
    return {"policy_kwargs": {"net_arch": [8], **more}}


@pytest.mark.parametrize("action_space", ACTIONS.values(), ids=ACTIONS)
@pytest.mark.parametrize(
    ("policy", "observation_space"),
    [
        ("MlpPolicy", VECTOR),
        ("CnnPolicy", IMAGE),
        ("MultiInputPolicy", spaces.Dict({"vector": VECTOR, "image": IMAGE})),
    ],
)
def test_every_policy_with_every_action_space(policy, observation_space, action_space, random_env):
    agent = BPO(policy, random_env(observation_space, action_space), **SMALL)
    before = {name: parameter.clone() for name, parameter in agent.policy.named_parameters()}
    agent.learn(32)
    assert agent._n_updates == 4
    unmoved = [name for name, parameter in agent.policy.named_parameters() if torch.equal(parameter, before[name])]
    assert not unmoved
    action, _ = agent.predict(observation_space.sample(), deterministic=True)
    assert action_space.contains(action if action.shape else int(action))


def test_the_default_networks_are_the_published_ones(random_env):
    policy = BPO("MlpPolicy", random_env(VECTOR, ACTIONS["Box"]), **SMALL).policy
    for network in (policy.mlp_extractor.policy_net, policy.mlp_extractor.value_net, policy.median_net):
        linear = [layer.out_features for layer in network if isinstance(layer, torch.nn.Linear)]
        assert linear[:2] == [256, 256] and isinstance(network[1], torch.nn.ReLU)


def test_policy_and_value_have_the_same_initial_weights_as_in_ppo(random_env):
    env = random_env(VECTOR, ACTIONS["Box"])
    layers = {"policy_kwargs": {"net_arch": {"pi": [8], "vf": [6, 4]}, "activation_fn": torch.nn.Tanh}}
    ours, theirs = BPO("MlpPolicy", env, **SMALL, **layers), PPO("MlpPolicy", env, **SMALL, **layers)
    for name, parameter in theirs.policy.named_parameters():
        assert torch.equal(parameter, ours.policy.get_parameter(name)), name
    assert [layer.out_features for layer in ours.policy.median_net[::2]] == [6, 4, 1]


@pytest.mark.parametrize("share", [True, False])
def test_the_median_critic_can_share_the_features_extractor(share, random_env):
    env = random_env(IMAGE, ACTIONS["Discrete"])
    policy = BPO("CnnPolicy", env, **SMALL, policy_kwargs={"share_features_extractor": share}).policy
    assert isinstance(policy.median_features_extractor, NatureCNN)
    assert (policy.median_features_extractor is policy.vf_features_extractor) == share
    observations = torch.randint(0, 255, (5, 1, 36, 36), dtype=torch.uint8)
    values, medians, log_prob, entropy = policy.evaluate_with_median(observations, torch.zeros(5))
    expected = policy.evaluate_actions(observations, torch.zeros(5))
    for found, wanted in zip((values, log_prob, entropy), expected, strict=True):
        torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(medians, policy.predict_medians(observations))


def test_a_saved_agent_can_be_loaded_and_trained_further(tmp_path, random_env):
    env = random_env(VECTOR, ACTIONS["Box"])
    options = {"clip_range": 0.2, "clip_range_high": 0.4, "temperature": 0.5, "target_baseline": "quantile"}
    agent = BPO("MlpPolicy", env, **SMALL, **small_net(), **options, median_coef=0.25).learn(32)
    agent.save(tmp_path / "agent")
    loaded = BPO.load(tmp_path / "agent", env)
    observation = VECTOR.sample()
    np.testing.assert_array_equal(
        agent.predict(observation, deterministic=True)[0], loaded.predict(observation, deterministic=True)[0]
    )
    for name, tensor in agent.policy.state_dict().items():
        assert torch.equal(tensor, loaded.policy.state_dict()[name]), name
    assert (loaded.temperature, loaded.target_baseline, loaded.median_coef) == (0.5, "quantile", 0.25)
    assert loaded._epsilons() == (0.2, 0.4)
    loaded.learn(32, reset_num_timesteps=False)
    assert loaded.num_timesteps == 64 and loaded._n_updates == 8


def test_training_after_load_equals_the_uninterrupted_training(tmp_path, skewed):
    """The environment repeats itself every five steps, so a new one goes on like the old one.

    The schedules fall linearly to 0. The second of three rollouts trains with a third of their initial values.
    """

    class SaveBetween(BaseCallback):
        def _on_step(self):
            return True

        def _on_rollout_start(self):
            if self.num_timesteps == 100:
                self.model.save(tmp_path / "agent")
                self.model.set_random_seed(9)

    schedules = {"learning_rate": LinearSchedule(0.01, 0.0, 1.0), "clip_range": half, "clip_range_vf": half}
    options = {**SMALL, "n_steps": 100, "batch_size": 32, **small_net(), **schedules}
    whole = BPO("MlpPolicy", skewed, **options).learn(300, SaveBetween())
    resumed = BPO.load(tmp_path / "agent", type(skewed)())
    resumed.set_random_seed(9)
    resumed.learn(200, reset_num_timesteps=False)
    assert resumed.num_timesteps == 300 and resumed._n_updates == 6
    for name, tensor in whole.policy.state_dict().items():
        assert torch.equal(resumed.policy.state_dict()[name], tensor), name
    for name in ("learning_rate", "clip_range", "clip_range_high", "clip_range_vf", "loss"):
        assert resumed.logger.name_to_value[f"train/{name}"] == whole.logger.name_to_value[f"train/{name}"], name


def half(progress):
    return 0.5 * progress


@pytest.mark.parametrize("high", [None, 0.4])
def test_a_new_clip_range_moves_both_bounds_unless_the_upper_one_is_given(high, tmp_path, random_env):
    env = random_env(VECTOR, ACTIONS["Box"])
    agent = BPO("MlpPolicy", env, **SMALL, **small_net(), clip_range=0.2, clip_range_high=high)
    assert agent._epsilons() == (0.2, high or 0.2)
    agent.save(tmp_path / "agent")
    assert BPO.load(tmp_path / "agent")._epsilons() == (0.2, high or 0.2)
    assert BPO.load(tmp_path / "agent", clip_range=0.1)._epsilons() == (0.1, high or 0.1)
    assert BPO.load(tmp_path / "agent", custom_objects={"clip_range": half})._epsilons() == (0.5, high or 0.5)
    assert BPO.load(tmp_path / "agent", clip_range=0.1, clip_range_high=0.3)._epsilons() == (0.1, 0.3)
    assert BPO.load(tmp_path / "agent", clip_range_high=None)._epsilons() == (0.2, 0.2)
    with pytest.raises(ValueError, match="clip_range=1.5 puts the lower bound"):
        BPO.load(tmp_path / "agent", clip_range=1.5)
    for value in (0.1, lambda progress: 0.1):
        agent.clip_range = value
        assert agent._epsilons() == (0.1, high or 0.1)
    agent.learn(16)
    assert agent.logger.name_to_value["train/clip_range"] == 0.1
    assert agent.logger.name_to_value["train/clip_range_high"] == (high or 0.1)
    agent.save(tmp_path / "again")
    assert BPO.load(tmp_path / "again")._epsilons() == (0.1, high or 0.1)


@pytest.mark.parametrize(("name", "value"), [("clip_range", -0.2), ("clip_range_high", 0), ("target_baseline", "max")])
def test_an_option_that_is_set_later_is_checked_before_training(name, value, random_env):
    agent = BPO("MlpPolicy", random_env(VECTOR, ACTIONS["Box"]), **SMALL, **small_net())
    setattr(agent, name, value)
    with pytest.raises(ValueError, match=f"{name}="):
        agent.learn(1)
    assert agent.num_timesteps == 0


def test_the_same_seed_gives_the_same_weights(random_env):
    def weights():
        agent = BPO("MlpPolicy", "CartPole-v1", **SMALL, **small_net()).learn(64)
        return torch.nn.utils.parameters_to_vector(agent.policy.parameters())

    assert torch.equal(weights(), weights())


def test_vecnormalize_gsde_target_kl_callbacks_and_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    envs = VecNormalize(make_vec_env("Pendulum-v1", 2))
    logged = {}

    class Watch(BaseCallback):
        def _on_step(self):
            return True

        def _on_rollout_start(self):
            logged.update(self.logger.name_to_value)

    options = {**SMALL, "use_sde": True, "sde_sample_freq": 4, "target_kl": 1e-6, "tensorboard_log": str(tmp_path)}
    agent = BPO("MlpPolicy", envs, **options, **small_net(log_std_init=-1), learning_rate=0.01, clip_range_vf=0.2)
    agent.learn(96, Watch())
    assert agent._n_updates < 6  # stopped by the KL divergence
    assert {f"train/{name}" for name in ("median_loss", "target_ratio", "ratio_error", "approx_kl", "std")} <= set(
        logged
    )
    assert list(tmp_path.glob("BPO_1/events*"))


def test_schedules_may_end_at_zero():
    """The last rollout may exceed the number of steps. The remaining progress and the schedule are then negative."""

    def schedule(progress):
        return 0.3 * progress

    agent = BPO("MlpPolicy", "CartPole-v1", **SMALL, **small_net(), clip_range=schedule, learning_rate=1e-3)
    agent.learn(20)
    assert agent._current_progress_remaining < 0
    assert agent._epsilons() == (1e-8, 1e-8)
    assert agent.logger.name_to_value["train/target_ratio"] == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_range": 1.5}, "clip_range=1.5 puts the lower bound"),
        ({"clip_range": 0.0}, "clip_range=0.0 puts the lower bound"),
        ({"clip_range": "0.2"}, "clip_range='0.2' is neither a number nor a function"),
        ({"clip_range": None}, "clip_range=None is neither"),
        ({"clip_range_high": [0.2]}, "clip_range_high=.* is neither"),
        ({"clip_range": lambda progress: 2 * progress}, "clip_range=2.0 puts the lower bound"),
        ({"clip_range_high": -0.1}, "clip_range_high=-0.1 puts the upper bound"),
        ({"temperature": -1.0}, "temperature=-1.0 gives no valid target ratio"),
        ({"temperature": float("nan")}, "temperature=nan gives no valid target ratio"),
        ({"median_coef": -0.5}, "median_coef=-0.5 would increase the error of the median critic"),
        ({"target_baseline": "mode"}, "target_baseline='mode' is unknown.*Write one of median, quantile, mean."),
        ({"policy": ActorCriticPolicy}, "policy=ActorCriticPolicy has no median critic"),
    ],
)
def test_an_invalid_option_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        BPO(**{"policy": "MlpPolicy", "env": "CartPole-v1", **options})


def test_a_custom_policy_with_a_median_critic(random_env):
    class Custom(ActorCriticPolicy):
        pass

    class CustomWithMedian(MedianCritic, Custom):
        default_net_arch = {"pi": [8], "vf": [8]}

    agent = BPO(CustomWithMedian, random_env(VECTOR, ACTIONS["Discrete"]), **SMALL).learn(16)
    assert agent.policy.median_net[0].out_features == 8
