"""BPO in rsl_rl, with a small vectorised environment on the CPU."""

import copy
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

pytest.importorskip("rsl_rl")

from rsl_rl.env import VecEnv
from rsl_rl.runners import OnPolicyRunner
from tensordict import TensorDict

from gbpo.control.rsl_rl import BPO

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes" / "control" / "rsl_rl").glob("*.yaml"))


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


def test_of_a_checkpoint_of_ppo_only_the_actor_can_be_loaded(runner):
    first, second = runner(), runner()
    state = first.alg.save()
    del state["median_state_dict"]
    for parameter in first.alg.actor.parameters():
        parameter.data += 1
    before = copy.deepcopy(second.alg.actor.state_dict())
    with pytest.raises(ValueError, match="The checkpoint has no median critic.*Load its actor alone"):
        second.alg.load(state, None, True)
    assert all(torch.equal(tensor, before[name]) for name, tensor in second.alg.actor.state_dict().items())
    second.alg.load(state, {"actor": True}, True)
    for name, tensor in second.alg.actor.state_dict().items():
        assert torch.equal(tensor, first.alg.actor.state_dict()[name]), name


def test_the_learning_rate_adapts_to_the_kl_divergence(runner):
    for desired, direction in [(1e-6, -1), (1e3, 1)]:
        made = runner(desired_kl=desired)
        rollout(made)
        made.alg.update()
        assert (made.alg.learning_rate - 1e-3) * direction > 0
        assert {group["lr"] for group in made.alg.optimizer.param_groups} == {made.alg.learning_rate}


def test_mixed_precision_computes_the_networks_in_bfloat16(runner):
    found, seen = {}, []
    for mixed in (False, True):
        made = runner(use_mixed_precision=mixed, num_learning_epochs=1, num_mini_batches=1)
        rollout(made)
        made.alg.median.mlp[0].register_forward_hook(lambda _, __, output: seen.append(output.dtype))
        found[mixed] = made.alg.update()
        assert all(p.dtype == p.grad.dtype == torch.float32 for p in made.alg.median.parameters())
    assert seen == [torch.float32, torch.bfloat16]
    assert found[True] != found[False]
    for name in ("value", "median", "entropy"):
        assert found[True][name] == pytest.approx(found[False][name], rel=0.02)  # 8 bits of precision


PROCESS = """
import sys
sys.path.insert(0, sys.argv[1])
rank = int(sys.argv[3])
import torch
import torch.distributed as distributed
from test_rsl_rl import Points, config, rollout
from rsl_rl.runners import OnPolicyRunner
from gbpo.control.rsl_rl import BPO

distributed.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
torch.manual_seed(rank)
runner = OnPolicyRunner(Points(), config())
single = runner.alg
multi = {"global_rank": rank, "local_rank": rank, "world_size": 2}
runner.alg = alg = BPO(single.actor, single.critic, single.storage, multi_gpu_cfg=multi, desired_kl=0.01)


def everywhere(values):
    gathered = [torch.empty_like(values) for _ in range(2)]
    distributed.all_gather(gathered, values)
    return gathered


def vector(tensors):
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


parameters = [parameter for group in alg.optimizer.param_groups for parameter in group["params"]]
before, other = everywhere(vector(parameters))
assert not torch.equal(before, other)
alg.broadcast_parameters()
assert all(torch.equal(found, before) for found in everywhere(vector(parameters)))

rollout(runner)
sum(alg.minibatch_losses(next(alg.storage.mini_batch_generator(1, 1)))[:3]).backward()
mine, yours = everywhere(vector(parameter.grad for parameter in parameters))
assert not torch.equal(mine, yours)
alg.reduce_parameters()
torch.testing.assert_close(vector(parameter.grad for parameter in parameters), (mine + yours) / 2)

alg.update()
after, other = everywhere(vector(parameters))
assert torch.equal(after, other) and not torch.equal(after, before)

alg.learning_rate = 1e-3
mean, std = alg.actor.output_distribution_params
alg._adapt_learning_rate((mean + rank, std))  # the KL divergence is 0 in the first process, and large on average
rate, other = everywhere(torch.tensor([alg.learning_rate]))
assert rate == other < 1e-3
"""


@pytest.mark.slow
def test_two_processes_train_the_same_networks(tmp_path):
    """rsl_rl's runner gives `multi_gpu_cfg` on GPUs only, so the processes give it themselves."""
    arguments = [sys.executable, "-c", PROCESS, str(Path(__file__).parent), str(tmp_path / "store")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    processes = [
        subprocess.Popen([*arguments, str(rank)], env=environment, text=True, stderr=subprocess.PIPE) for rank in (0, 1)
    ]
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
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
