"""The parts of TRL, transformers and TRL's vLLM client that this project relies on.

When an upgrade changes one of them, these tests fail and say what to check.
"""

import hashlib
import inspect
from dataclasses import fields

import pytest
import trl
from transformers import Trainer
from trl import GRPOConfig, GRPOTrainer
from trl.generation.vllm_client import VLLMClient
from trl.generation.vllm_generation import VLLMGeneration
from trl.trainer import grpo_trainer, utils

from gbpo import GBPOConfig

# Overridden, wrapped or re-implemented methods: the SHA-256 of their source in the tested version, and what to check.
SOURCES = {
    (GRPOTrainer, "_compute_loss"): (
        "80295546bbdbf6f7",
        "gbpo/trainer/gbpo.py re-implements it: support or refuse every new option",
    ),
    (GRPOTrainer, "_generate_and_score_completions"): (
        "1fa48922792dcd5c",
        "the target is added to its output; advantages are (B,) of this rank; it requests old log-probs first",
    ),
    (GRPOTrainer, "_calculate_rewards"): (
        "736ae29b083840b5",
        "returns (B_global, n_funcs) with NaN for None; columns are inputs[0]'s",
    ),
    (GRPOTrainer, "_generate"): ("2a27fdf8f5e6f356", "extra votes repeat it; completions are the fourth result"),
    (GRPOTrainer, "_generate_single_turn"): ("e0f02e4fc094cefd", "calls `generate` of the unwrapped model by keywords"),
    (GRPOTrainer, "_tool_call_loop"): (
        "1c501f7f3b469f7e",
        "evals/evaluate/tool_turns.py calls it without a trainer and sets all attributes that it reads; "
        "run/tools/possible.py refuses what it cannot do",
    ),
    (GRPOTrainer, "_get_tool_suffix_ids"): ("e62362aef61aa88c", "as _tool_call_loop, which calls it"),
    (GRPOTrainer, "_tokenize_prompts"): ("d2d27f7c9bfda85f", "every result has one entry per prompt"),
    (GRPOTrainer, "_prepare_inputs"): (
        "f824e7fb07147956",
        "shuffles and splits tensors and lists of length B; fills _buffered_inputs",
    ),
    (GRPOTrainer, "_get_per_token_logps_and_entropies"): (
        "ea73c3909275851d",
        "passes/run.py and passes/unpadded.py use the same arguments and labels",
    ),
    (GRPOTrainer, "compute_loss"): ("a2d6ef8bd29c3e26", "calls nothing but _compute_loss"),
    (GRPOTrainer, "training_step"): ("9e18632f7dd8e8d8", "one call is one micro-batch; _step counts them"),
    (GRPOTrainer, "get_train_dataloader"): ("2bffe5a57c539e17", "the loader is accelerate's"),
    (GRPOTrainer, "_get_train_sampler"): ("36497afb4d311dc9", "each iteration of the sampler draws one epoch"),
    (GRPOTrainer, "_save_checkpoint"): ("ec91bde123649111", "writes into _get_output_dir"),
    (Trainer, "training_step"): ("e9760c8ee10308d5", "calls _prepare_inputs, compute_loss and backward"),
    (Trainer, "_save_checkpoint"): ("a9111e30faa99339", "writes into _get_output_dir, then rotates"),
    (Trainer, "_get_output_dir"): ("97172085342ac46c", "one folder for all checkpoints of a run"),
    (Trainer, "_save_rng_state"): ("27a97d1061240f42", "called for every checkpoint on every rank"),
    (Trainer, "_load_rng_state"): (
        "d5ebdfc0a0884c4b",
        "called before the first step of a resumed epoch, or at its first batch",
    ),
    (Trainer, "_load_from_checkpoint"): ("a2804e8d93a297e3", "loads weights by name, and only warns of missing names"),
    (Trainer, "_load_best_model"): ("0e183d55a9db7414", "loads weights by name, and only warns of missing names"),
    (Trainer, "_init_training_state"): (
        "8fbd17ebb7d3793d",
        "returns epochs and micro-batches trained; state is loaded",
    ),
    (Trainer, "_get_grad_norm"): ("913ba6f52f074d10", "called once per optimiser step, before it"),
    (VLLMGeneration, "__init__"): (
        "3b2cda6d35bb97b4",
        "builds the engine from the names LLM and VLLMClient of its module",
    ),
    (VLLMGeneration, "_iter_named_params"): (
        "baab615d5c7bc3e1",
        "calls merge_adapter and unmerge_adapter of the model; sampling/merged_weights.py knows how it names weights",
    ),
    (VLLMGeneration, "_iter_fsdp2_params"): ("6d41acd02236f368", "as _iter_named_params"),
    (VLLMGeneration, "generate"): ("2d2ac2be5b1309c4", "calls the client's generate by keywords"),
    (VLLMClient, "generate"): (
        "63635cf59ca8bb70",
        "SeededClient calls it with one prompt and all of its `n` completions; all of its results are lists",
    ),
    (VLLMClient, "_post"): ("6d49fa01931d2298", "sends by the session, whose retries and hooks SeededClient changes"),
    (utils, "shuffle_sequence_dict"): ("bab038755e57ed2b", "permutes lists as it does tensors"),
    (utils, "split_pixel_values_by_grid"): ("3aca66e33a7978d3", "gives lists of length B, or tensors with B rows"),
    (utils, "unsplit_pixel_values_by_grid"): ("9d31b407fc5f4399", "joins the lists that the split gives"),
    (utils, "split_tensor_dict"): ("b61a5760a03e95db", "splits lists as it does tensors"),
}


@pytest.mark.parametrize(("owner", "name"), SOURCES)
def test_the_source_is_unchanged(owner, name):
    digest, check = SOURCES[owner, name]
    actual = hashlib.sha256(inspect.getsource(getattr(owner, name)).encode()).hexdigest()[:16]
    assert actual == digest, f"{owner.__name__}.{name} has changed (TRL {trl.__version__}). Check: {check}."


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
    assert actual == SIGNATURES[method], f"gbpo/trainer calls or overrides GRPOTrainer.{method} by these names."


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
        assert hasattr(trainer, name), f"gbpo/trainer reads GRPOTrainer.{name}"


def test_every_option_is_known():
    """A field that TRL adds may act in the loss. Support or refuse it, then list it here."""
    own = {f.name for f in fields(GRPOConfig)} - {f.name for f in fields(trl.trainer.base_config._BaseConfig)}
    assert own == KNOWN_FIELDS, f"new: {sorted(own - KNOWN_FIELDS)}, gone: {sorted(KNOWN_FIELDS - own)}"
    assert {f.name for f in fields(GBPOConfig)} - {f.name for f in fields(GRPOConfig)} == {
        "target_baseline",
        "target_temperature",
        "overshoot_slope",
        "bound_exponent",
        "max_log_ratio",
        "max_tokens_per_micro_batch",
        "optimizer_batch_size",
        "exact_speedups",
        "resample_zero_signal_groups",
        "difficulty",
        "ratio_anchor",
        "generate_ahead",
        "max_staleness",
        "sampling_dtype",
    }


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
