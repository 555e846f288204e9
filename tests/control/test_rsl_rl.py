"""BPO in rsl_rl, with a small vectorised environment on the CPU."""

import copy
import math
from pathlib import Path

import pytest
import torch
import yaml

pytest.importorskip("rsl_rl")

from rsl_rl.env import VecEnv
from rsl_rl.runners import OnPolicyRunner
from tensordict import TensorDict

from gbpo.control.rsl_rl import BPO

RECIPES = sorted((Path(__file__).parents[2] / "recipes" / "control" / "rsl_rl").glob("*.yaml"))


class Points(VecEnv):
    """Points in a plane that the agent must push to the origin. An episode has ten steps."""

    num_envs, num_actions, max_episode_length, device, cfg = 64, 2, 10, "cpu", {}

    def __init__(self):
        self.rng = torch.Generator().manual_seed(0)
        self.places = self._starts()
        self.episode_length_buf = torch.zeros(self.num_envs, dtype=torch.long)

    def _starts(self):
        return 2 * torch.rand(self.num_envs, 2, generator=self.rng) - 1

    def get_observations(self):
        return TensorDict({"policy": self.places.clone()}, batch_size=self.num_envs)

    def step(self, actions):
        self.places = self.places + 0.3 * actions.clamp(-1, 1)
        rewards = -self.places.norm(dim=-1)
        self.episode_length_buf += 1
        over = self.episode_length_buf >= self.max_episode_length
        self.places = torch.where(over.unsqueeze(-1), self._starts(), self.places)
        self.episode_length_buf[over] = 0
        return self.get_observations(), rewards, over, {"time_outs": over}


def config(**algorithm):
    recipe = yaml.safe_load(RECIPES[0].read_text())
    for model in ("actor", "critic"):
        recipe[model]["hidden_dims"] = [32]
    recipe["algorithm"].update(algorithm)
    return recipe


@pytest.fixture
def runner(tmp_path):
    def make(**algorithm):
        torch.manual_seed(0)
        return OnPolicyRunner(Points(), config(**algorithm), log_dir=str(tmp_path))

    return make


def rollout(runner, steps=24):
    """Collect a rollout, compute its returns and return the mean reward of each step."""
    env, alg = runner.env, runner.alg
    rewards = []
    with torch.inference_mode():
        for _ in range(steps):
            observations, reward, dones, extras = env.step(alg.act(env.get_observations()))
            alg.process_env_step(observations, reward, dones, extras)
            rewards.append(reward.mean().item())
        alg.compute_returns(observations)
    return rewards


@pytest.mark.slow
def test_the_runner_trains_bpo(runner, tmp_path):
    made = runner()
    assert type(made.alg) is BPO
    before = sum(rollout(made))
    made.alg.storage.clear()
    made.learn(40)
    after = sum(rollout(made))
    assert after > 0.5 * before  # rewards are negative distances, so the distance is at least halved
    assert list(tmp_path.glob("model_*.pt"))


def test_losses_match_the_paper(runner):
    made = runner(num_learning_epochs=1, num_mini_batches=1, clip_param=0.3, temperature=0.5, schedule="fixed")
    rollout(made)
    alg = made.alg
    with torch.no_grad():
        alg.median.mlp[-1].bias += 0.7
        alg.critic.mlp[-1].bias -= 0.4
        for parameter in alg.actor.mlp.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    batch = next(alg.storage.mini_batch_generator(1, 1))
    found = alg.minibatch_losses(batch)
    with torch.no_grad():
        mean, std = alg.actor.mlp(batch.observations["policy"]), alg.actor.output_std[0]
        log_probs = torch.distributions.Normal(mean, std).log_prob(batch.actions).sum(-1)
        v, u = (model.mlp(batch.observations["policy"])[:, 0] for model in (alg.critic, alg.median))
    expected = [0.0, 0.0, 0.0]
    for i in range(len(v)):
        r = batch.returns[i].item()
        ratio = math.exp(log_probs[i].item() - batch.old_actions_log_prob[i].item())
        target = 0.7 + 0.6 / (1 + math.exp(-(r - u[i].item()) / 0.5))
        x = r - u[i].item()
        for k, term in enumerate(
            [abs(r - v[i].item()) * abs(ratio - target), (r - v[i].item()) ** 2, math.log1p(math.exp(x)) - x / 2]
        ):
            expected[k] += term / len(v)
    assert [term.item() for term in found[:3]] == pytest.approx(expected, rel=1e-4)
    for parameter in alg.actor.parameters():
        parameter.grad = None
    found[0].backward()
    assert any(parameter.grad.any() for parameter in alg.actor.mlp.parameters())
    assert all(p.grad is None or not p.grad.any() for model in (alg.critic, alg.median) for p in model.parameters())


def test_all_three_networks_are_trained_saved_and_loaded(runner, tmp_path):
    first = runner()
    before = copy.deepcopy(first.alg.save())
    first.learn(2)
    after = first.alg.save()
    for name in ("actor", "critic", "median"):
        old, new = before[f"{name}_state_dict"], after[f"{name}_state_dict"]
        assert all(not torch.equal(old[key], new[key]) for key in old), name
    assert not torch.equal(after["critic_state_dict"]["mlp.0.weight"], after["median_state_dict"]["mlp.0.weight"])
    first.save(str(tmp_path / "saved.pt"))
    second = runner()
    second.load(str(tmp_path / "saved.pt"))
    for key, tensor in second.alg.median.state_dict().items():
        assert torch.equal(tensor, first.alg.median.state_dict()[key])
    second.learn(1)


def test_the_learning_rate_adapts_to_the_kl_divergence(runner):
    for desired, direction in [(1e-6, -1), (1e3, 1)]:
        made = runner(desired_kl=desired)
        rollout(made)
        made.alg.update()
        assert (made.alg.learning_rate - 1e-3) * direction > 0
        assert {group["lr"] for group in made.alg.optimizer.param_groups} == {made.alg.learning_rate}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_mixed_precision": True}, "use_mixed_precision=True is not supported by BPO"),
        ({"normalize_advantage_per_mini_batch": True}, "normalize_advantage_per_mini_batch=True is not supported"),
        ({"temperature": -1.0}, "temperature=-1.0 gives no valid target ratio"),
        ({"clip_param": 1.5}, "lower bound"),
    ],
)
def test_unsupported_and_invalid_options_are_refused(options, message, runner):
    with pytest.raises(ValueError, match=message):
        runner(**options)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_builds_and_has_the_published_settings(path):
    recipe = yaml.safe_load(path.read_text())
    OnPolicyRunner(Points(), copy.deepcopy(recipe))
    published = {"clip_param": 0.2, "num_learning_epochs": 10, "num_mini_batches": 4, "learning_rate": 1e-3}
    published |= {"schedule": "adaptive", "desired_kl": 0.01, "gamma": 0.99, "lam": 0.95, "entropy_coef": 0.0}
    assert published.items() <= recipe["algorithm"].items()
    assert (recipe["num_steps_per_env"], recipe["max_iterations"]) == (24, 3000)
    header = path.read_text().split("\n\nseed:")[0]
    assert f"recipes/control/rsl_rl/{path.name}" in header and "Hardware:" in header and "Time" in header


def test_the_list_of_shipped_recipes():
    assert {path.stem for path in RECIPES} == {"g1_rough", "h1_rough", "go1_rough", "anymal_c_rough"}
