"""What GBPOTrainer relies on in TRL. When TRL is upgraded these tests turn red and say what to read again."""

import hashlib
import inspect
from dataclasses import fields

import pytest
import trl
from trl import GRPOConfig, GRPOTrainer
from trl.trainer import grpo_trainer, utils

from gbpo import GBPOConfig, GBPOTrainer
from gbpo.trainer.guards.vllm_weights import SyncedGRPOTrainer
from gbpo.trainer.passes.layout import PassesGRPOTrainer
from gbpo.trainer.passes.unpadded import TrimmedGRPOTrainer
from gbpo.trainer.sampling.extra_votes import VotingGRPOTrainer
from gbpo.trainer.sampling.resampling import ResamplingGRPOTrainer

# SHA-256 of the source of what we replace or build on, in the tested version
SOURCES = {
    "_compute_loss": "gbpo/trainer.py re-implements it: read TRL's diff and honour or refuse what is new",
    "_generate_and_score_completions": "the target is added to its output; advantages must stay (B,) and local",
    "_calculate_rewards": "its result must stay (B_global, n_funcs) with NaN for None; columns come from inputs[0]",
    "_generate": "gbpo/engine.py seeds it; voting.py repeats it: completions come fourth, its log is left out or kept",
    "_prepare_inputs": "tensors of length B must be shuffled and split with the batch; gbpo/passes.py reads its buffer",
    "_get_per_token_logps_and_entropies": "gbpo/trimming.py calls the model in its place: arguments and labels as here",
    "training_step": "gbpo/passes.py adds gradients inside compute_loss; one call is one micro-batch",
}
DIGESTS = {
    "_compute_loss": "80295546bbdbf6f7",
    "_generate_and_score_completions": "1fa48922792dcd5c",
    "_calculate_rewards": "736ae29b083840b5",
    "_generate": "2a27fdf8f5e6f356",
    "_prepare_inputs": "f824e7fb07147956",
    "_get_per_token_logps_and_entropies": "ea73c3909275851d",
    "training_step": "9e18632f7dd8e8d8",
}


@pytest.mark.parametrize("method", SOURCES)
def test_source_is_the_one_we_read(method):
    digest = hashlib.sha256(inspect.getsource(getattr(GRPOTrainer, method)).encode()).hexdigest()[:16]
    assert digest == DIGESTS[method], f"TRL {trl.__version__} changed GRPOTrainer.{method}: {SOURCES[method]}."


def test_the_head_asks_once_for_triton():
    """gbpo/trimming.py answers yes on a CPU: it must be asked for nothing but `compact`."""
    source = inspect.getsource(utils)
    assert source.count("_use_triton(") == source.count("compact = _use_triton(hidden_states.device)") == 1


SIGNATURES = {
    "_compute_loss": ["self", "model", "inputs"],
    "_calculate_rewards": ["self", "inputs", "prompts", "completions", "completion_ids_list"],
    "_generate": ["self", "prompts"],
    "_generate_and_score_completions": ["self", "inputs"],
    "get_high_entropy_mask": ["self", "entropies", "mask", "threshold"],
    "get_off_policy_mask": [
        "advantages",
        "per_token_logps",
        "sampling_per_token_logps",
        "mask",
        "off_policy_threshold",
    ],
    "_get_per_token_logps_and_entropies": [
        "self",
        "model",
        "input_ids",
        "attention_mask",
        "logits_to_keep",
        "batch_size",
        "compute_entropy",
        "compute_aux_loss",
        "pixel_values",
        "image_grid_thw",
        "num_images",
        "pixel_attention_mask",
        "spatial_shapes",
        "num_tiles",
        "image_sizes",
        "token_type_ids",
        "mm_token_type_ids",
        "image_position_ids",
    ],
}


@pytest.mark.parametrize("method", SIGNATURES)
def test_signature(method):
    actual = list(inspect.signature(getattr(GRPOTrainer, method)).parameters)
    assert actual == SIGNATURES[method], f"gbpo/trainer.py calls or overrides GRPOTrainer.{method} by these names."


def test_attributes_set_by_the_constructor(make_trainer):
    trainer = make_trainer()
    for name in (
        "aux_loss_enabled",
        "beta",
        "entropy_coef",
        "epsilon_high",
        "epsilon_low",
        "importance_sampling_level",
        "loss_type",
        "max_completion_length",
        "num_generations",
        "num_generations_eval",
        "off_policy_mask_threshold",
        "reward_funcs",
        "router_aux_loss_coef",
        "tools",
        "top_entropy_quantile",
        "use_adaptive_entropy",
        "use_vllm",
        "vllm_importance_sampling_correction",
        "_entropy_bonus_enabled",
        "_entropy_window_stats",
        "_last_world_entropy",
        "_metrics",
    ):  # and current_gradient_accumulation_steps, which transformers sets in the training loop
        assert hasattr(trainer, name), f"gbpo/trainer.py or gbpo/voting.py reads GRPOTrainer.{name}"


def test_no_new_option_acts_unseen():
    """A field that TRL adds may act in the loss: read it, honour or refuse it, then list it here."""
    own = {f.name for f in fields(GRPOConfig)} - {f.name for f in fields(trl.trainer.base_config._BaseConfig)}
    assert own == KNOWN_FIELDS, f"new: {sorted(own - KNOWN_FIELDS)}, gone: {sorted(KNOWN_FIELDS - own)}"
    assert {f.name for f in fields(GBPOConfig)} - {f.name for f in fields(GRPOConfig)} == {
        "target_baseline",
        "target_temperature",
        "overshoot_slope",
        "max_log_ratio",
        "trim_padding",
        "arrange_rows",
        "max_tokens_per_micro_batch",
        "skip_zero_signal",
        "pack_rows",
        "share_prompts",
        "reuse_first_pass",
        "resample_zero_signal_groups",
    }


def overridden(trainer):
    return {
        name
        for name, member in vars(trainer).items()
        if inspect.isfunction(member) and hasattr(GRPOTrainer, name) and name != "__init__"
    }


def test_no_other_method_is_overridden():
    assert overridden(GBPOTrainer) == {"_calculate_rewards", "_compute_loss"}
    assert overridden(PassesGRPOTrainer) == {"_prepare_inputs", "_generate_and_score_completions", "compute_loss"}
    assert overridden(TrimmedGRPOTrainer) == {"_get_per_token_logps_and_entropies"}
    assert overridden(ResamplingGRPOTrainer) == {"_generate_and_score_completions"}
    assert overridden(VotingGRPOTrainer) == {"_calculate_rewards"}
    assert overridden(SyncedGRPOTrainer) == {"_generate", "_generate_and_score_completions"}


def test_helpers_are_where_we_import_them_from():
    assert "get_config_model_id" in vars(grpo_trainer)


KNOWN_FIELDS = set(
    """
    beta
    cache_implementation
    cast_lm_head_to_fp32
    chat_template_kwargs
    delta
    disable_dropout
    ds3_gather_for_generation
    entropy_coef
    entropy_coef_delta
    entropy_coef_max
    entropy_coef_min
    entropy_target
    epsilon
    epsilon_high
    generation_batch_size
    generation_kwargs
    importance_sampling_level
    log_completions
    log_completions_hub_repo
    log_multimodal
    log_unique_prompts
    loss_type
    mask_truncated_completions
    max_completion_length
    max_tool_calling_iterations
    min_p
    model_init_kwargs
    multi_objective_aggregation
    num_completions_to_print
    num_generations
    num_generations_eval
    num_iterations
    off_policy_mask_threshold
    pad_to_multiple_of
    ref_model_mixup_alpha
    ref_model_sync_steps
    repetition_penalty
    reward_weights
    router_aux_loss_coef
    sapo_temperature_neg
    sapo_temperature_pos
    scale_rewards
    shuffle_dataset
    steps_per_generation
    sync_ref_model
    temperature
    top_entropy_quantile
    top_k
    top_p
    transformers_continuous_batching_config
    trust_remote_code
    use_adaptive_entropy
    use_bias_correction_kl
    use_transformers_continuous_batching
    use_transformers_paged
    use_vllm
    vespo_k_neg
    vespo_k_pos
    vespo_lambda_neg
    vespo_lambda_pos
    vllm_enable_sleep_mode
    vllm_gpu_memory_utilization
    vllm_group_port
    vllm_importance_sampling_cap
    vllm_importance_sampling_clip_max
    vllm_importance_sampling_clip_min
    vllm_importance_sampling_correction
    vllm_importance_sampling_mode
    vllm_max_model_length
    vllm_mode
    vllm_model_impl
    vllm_server_base_url
    vllm_server_host
    vllm_server_port
    vllm_server_timeout
    vllm_structured_outputs_regex
    vllm_tensor_parallel_size
    """.split()
)
