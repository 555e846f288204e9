"""Trainers of tiny models, and batches with every tensor that the loss can read."""

import os
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    FalconH1Config,
    Gemma3TextConfig,
    GPT2Config,
    GptOssConfig,
    MixtralConfig,
    Qwen3NextConfig,
)
from trl import GRPOConfig, GRPOTrainer
from trl.generation import vllm_generation

from device import DEVICE
from gbpo import GBPOConfig, GBPOTrainer
from gbpo.run.models.tiny import character_tokenizer
from gbpo.trainer.base import BaseTrainer
from gbpo.trainer.bridge import BridgeTrainer
from gbpo.trainer.passes.batch import rows_of
from gbpo.trainer.passes.speedups import SPEEDUPS
from rollouts import character_sum, equal_rewards
from vllm_engine import FakeEngine

# With these options the gradient of GBPO is that of GRPO's clipped loss.
GRPO_LIMIT = {"target_baseline": "mean", "target_temperature": 0.0, "overshoot_slope": 0.0}

_SHAPE = {
    "vocab_size": 106,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "num_hidden_layers": 3,
}
_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
# Windows of 4 tokens are shorter than a prompt.
_WINDOWS = {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
_NO_DROPOUT = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop", "summary_first_dropout"), 0.0)
MODELS = {
    "gemma": lambda: Gemma3TextConfig(**_SHAPE, **_WINDOWS),
    "gpt2": lambda: GPT2Config(vocab_size=106, n_positions=64, n_embd=32, n_layer=2, n_head=2, **_NO_DROPOUT),
    "gpt_oss": lambda: GptOssConfig(**_SHAPE, **_WINDOWS, **_EXPERTS),
    "mixtral": lambda: MixtralConfig(**_SHAPE, **_EXPERTS),
    "qwen3_next": lambda: Qwen3NextConfig(
        **_SHAPE | {"num_hidden_layers": 4, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32},
        num_experts=4,
        num_experts_per_tok=2,
        linear_num_key_heads=2,
        linear_num_value_heads=2,
        linear_key_head_dim=16,
        linear_value_head_dim=16,
    ),
    "falcon_h1": lambda: FalconH1Config(**_SHAPE, mamba_d_ssm=32, mamba_n_heads=2, mamba_d_head=16, mamba_d_state=16),
}


@pytest.fixture
def make_trainer(random_model, tmp_path):
    """`make_trainer("gbpo" | "grpo", **config)`: a trainer; "grpo" is TRL's own and ignores fields that only GBPO has.

    `base` and `config_class` replace the classes of the algorithm.
    """

    def make(
        algorithm="gbpo",
        *,
        model=random_model,
        reward_funcs=equal_rewards,
        dataset=None,
        trainer=None,
        base=None,
        config_class=None,
        **config,
    ):
        defaults = {
            "output_dir": str(tmp_path / algorithm),
            **DEVICE,
            "bf16": False,
            "num_generations": 4,
            "per_device_train_batch_size": 8,
            "max_completion_length": 6,
            "activation_checkpointing": False,
            "disable_tqdm": True,
            "save_strategy": "no",
            "logging_steps": 1,
            "num_iterations": 2,
            "learning_rate": 1e-2,
        }
        trainers = {"gbpo": (GBPOTrainer, GBPOConfig), "grpo": (GRPOTrainer, GRPOConfig)}
        trainer_class, config_class = base or trainers[algorithm][0], config_class or trainers[algorithm][1]
        fields = config_class.__dataclass_fields__
        values = {key: value for key, value in (defaults | config).items() if key in fields}
        dataset = dataset or Dataset.from_dict({"prompt": [f"{i}+1=" for i in range(8)]})
        return trainer_class(model, reward_funcs, config_class(**values), train_dataset=dataset, **(trainer or {}))

    return make


@pytest.fixture
def engine(monkeypatch):
    """The fake engine, which takes the place of vLLM's."""
    monkeypatch.setattr(vllm_generation, "is_vllm_available", lambda: True)
    monkeypatch.setattr(vllm_generation, "LLM", FakeEngine, raising=False)
    monkeypatch.setattr(vllm_generation, "SamplingParams", lambda **options: SimpleNamespace(**options), raising=False)
    monkeypatch.setattr(FakeEngine, "receives_weights", True)
    monkeypatch.setattr(FakeEngine, "noise", 0.0)
    return FakeEngine


@pytest.fixture
def make_with_vllm(make_trainer, engine, monkeypatch):
    """`make_with_vllm("gbpo" | "grpo", **config)`: a trainer that samples from the fake engine.

    TRL sets variables of a distributed run in the environment. They are removed again.
    """

    def make(algorithm="gbpo", **config):
        config.setdefault("base", BaseTrainer if algorithm == "grpo" else None)
        defaults = {"use_vllm": True, "vllm_mode": "colocate", "num_iterations": 1, "max_steps": 3}
        with monkeypatch.context() as environment:
            environment.setattr(os, "environ", os.environ.copy())
            return make_trainer(algorithm, reward_funcs=character_sum, **(defaults | config))

    return make


@pytest.fixture
def save_model(tmp_path):
    """`save_model(name)`: the folder of a random model of an architecture in `MODELS`."""

    def save(name):
        tokenizer, config = character_tokenizer(), MODELS[name]()
        assert len(tokenizer) == config.vocab_size
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
        return str(tmp_path / name)

    return save


@pytest.fixture
def make_batch():
    """`make_batch(trainer)`: 8 rows of 4 prompt and up to 6 completion tokens, ratios inside and outside the bounds."""

    def make(trainer, seed=0):
        rng = torch.Generator().manual_seed(seed)
        lengths = torch.tensor([6, 5, 4, 6, 3, 6, 2, 6]).unsqueeze(1)
        batch = {
            "prompt_ids": torch.randint(6, 100, (8, 4), generator=rng),
            "prompt_mask": torch.ones(8, 4, dtype=torch.long),
            "completion_ids": torch.randint(6, 100, (8, 6), generator=rng),
            "completion_mask": (torch.arange(6) < lengths).long(),
            "advantages": torch.tensor([1.5, -0.5, -0.5, -0.5, 0.9, 0.9, -0.9, -0.9]),
        }
        batch["num_items_in_batch"] = batch["completion_mask"].sum()
        with torch.no_grad():
            logps = trainer._get_per_token_logps_and_entropies(
                trainer.model,
                torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1),
                torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1),
                6,
            )[0]
        batch["old_per_token_logps"] = logps + 0.4 * torch.randn(8, 6, generator=rng)
        batch["ref_per_token_logps"] = logps + 0.3 * torch.randn(8, 6, generator=rng)
        batch["sampling_per_token_logps"] = logps + 0.6 * torch.randn(8, 6, generator=rng)
        batch["tool_mask"] = (torch.rand(8, 6, generator=rng) < 0.8).long()
        return batch

    return make


@pytest.fixture
def add_targets():
    """`add_targets(trainer, batch)`: the batch with the targets that GBPO computes from its advantages."""

    def add(trainer, batch):
        target, centred = trainer.targets(batch["advantages"])
        return batch | {"target_ratio": target, "centred_advantages": centred}

    return add


def _gradient(trainer, batch):
    model = trainer.model
    model.train()
    model.zero_grad()
    trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
    bounded = isinstance(trainer, GBPOTrainer)
    loss = trainer.compute_loss(model, [trainer.as_pass(batch | {"rows": rows_of(batch)})] if bounded else batch)
    loss.backward()
    if isinstance(trainer, BridgeTrainer) and trainer.accelerator.sync_gradients:
        trainer._log_ratios()
        trainer.finish_step()
        trainer._ran = ()
    return loss.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.fixture
def gradient():
    """`gradient(trainer, batch)` → loss and flat gradient of one micro-batch."""
    return _gradient


@pytest.fixture
def without():
    """`without(name, …)`: the option that turns on all exact speed-ups but these."""
    return lambda *names: {"exact_speedups": [name for name in SPEEDUPS if name not in names]}


@pytest.fixture
def distance():
    """`distance(a, b)`: the relative distance of two gradients."""
    return lambda a, b: ((a - b).norm() / b.norm()).item()


@pytest.fixture
def grpo_limit():
    return dict(GRPO_LIMIT)
