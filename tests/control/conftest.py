"""Small environments for the tests of BPO."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

pytest.importorskip("stable_baselines3")


class Skewed(gymnasium.Env):
    """One state, episodes of one step, and rewards 0, 0, 0, 20, 20 in turn for any action: median 0, mean 8."""

    observation_space = spaces.Box(1.0, 1.0, (1,), np.float32)
    action_space = spaces.Discrete(2)
    rewards = (0.0, 0.0, 0.0, 20.0, 20.0)

    def __init__(self):
        self.steps = 0

    def reset(self, *, seed=None, options=None):
        return np.ones(1, np.float32), {}

    def step(self, action):
        reward = self.rewards[self.steps % len(self.rewards)]
        self.steps += 1
        return np.ones(1, np.float32), reward, True, False, {}


class Spaces(gymnasium.Env):
    """Random observations and rewards for the given spaces. An episode has seven steps."""

    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = observation_space, action_space
        self.steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.steps += 1
        return self.observation_space.sample(), float(self.np_random.normal()), self.steps == 7, False, {}


@pytest.fixture
def skewed():
    return Skewed()


@pytest.fixture
def random_env():
    return Spaces
