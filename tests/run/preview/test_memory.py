"""The estimated memory of a rank, compared to real steps."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.integrations import deepspeed
from trl import get_peft_config

import pictures
from gbpo import GBPOTrainer
from gbpo.run.data.loading import load
from gbpo.run.data.prompts import PromptFormat
from gbpo.run.models.description import Description, describe
from gbpo.run.models.tiny_vision import tiny_qwen_vl
from gbpo.run.preview import fake_runs, hazards, memory
from gbpo.run.preview.device import Device, device_here, precision
from gbpo.run.recipe.parsing import parse
from gbpo.trainer.passes.capabilities import CACHE
from rollouts import character_sum

ROOT = Path(__file__).parents[3]
TINY = str(ROOT / "recipes" / "tiny_math.yaml")


def parsed(model, *flags):
    return parse([TINY, "--model_name_or_path", model, *map(str, flags)])


CARD = 80e9  # bytes


def estimate(model, recipe):
    return memory.estimate(recipe, memory.skeleton(recipe, describe(model, recipe)), prompt_tokens=9)


def by_name(parts):
    return {part.name.split(" (")[0]: part for part in parts}


def estimated(model, *flags):
    return by_name(estimate(model, parsed(model, *flags)).parts(CARD))


def one_step(model, tmp_path, *flags):
    """A trainer after one optimiser step, the peak bytes of its training step, and the bytes of its KV cache."""
    parsed_recipe = parsed(model, "--max_steps", 1, "--output_dir", tmp_path / "run", "--logging_steps", 1, *flags)
    args = parsed_recipe.training
    args.model_init_kwargs = {"dtype": parsed_recipe.model.dtype}
    tokenizer = describe(model, parsed_recipe).tokenizer
    train_set, _ = load(parsed_recipe.run, evaluation=False)
    trainer = GBPOTrainer(
        model,
        character_sum,
        args,
        train_dataset=PromptFormat.of(parsed_recipe).format(train_set, tokenizer),
        processing_class=tokenizer,
        peft_config=get_peft_config(parsed_recipe.model),
    )
    seen = SimpleNamespace(gradients=0, peak=0, cache=0)
    inner = trainer.model.get_base_model() if hasattr(trainer.model, "get_base_model") else trainer.model
    training_step, forward = trainer.training_step, inner.forward

    def watched_step(module, inputs, *others):
        module.train()
        inputs = trainer._prepare_inputs(inputs)
        trainer._prepare_inputs = lambda batch: batch
        with fake_runs.Live(module.parameters()) as live:
            loss = training_step(module, inputs, *others)
        seen.peak = live.peak
        seen.gradients = sum(p.grad.nbytes for p in module.parameters() if p.grad is not None)
        return loss

    def watched_forward(*args, **kwargs):
        output = forward(*args, **kwargs)
        if output.get(CACHE) is not None:
            layers = output[CACHE].layers
            seen.cache = max(seen.cache, sum(layer.keys.nbytes + layer.values.nbytes for layer in layers))
        return output

    trainer.training_step, inner.forward = watched_step, watched_forward
    trainer.train()
    return trainer, seen


SMALL = ("--per_device_train_batch_size", 32, "--steps_per_generation", 1, "--max_completion_length", 48)
# completions of the length that the estimate assumes, and none skipped
FULL = ("--generation_kwargs", "{min_new_tokens: 48}", "--exact_speedups", "trim_padding", "arrange_rows")


@pytest.fixture
def small_logits(monkeypatch):
    """The buffer for logits is as wide as the vocabulary needs, so that activations are most of the memory."""
    for module in ("trl.trainer.utils", "gbpo.run.preview.fake_runs"):
        monkeypatch.setattr(f"{module}._CHUNKED_LOGPROB_CHUNK_SIZE", 256)


def measured(trainer, seen):
    """Bytes of a real trainer, by the names of the estimate's parts."""
    states = trainer.optimizer.optimizer.state.values()
    return {
        "weights": sum(p.nbytes for p in trainer.model.parameters()),
        "reference model": sum(p.nbytes for p in trainer.ref_model.parameters()) if trainer.ref_model else 0,
        "gradients": seen.gradients,
        "optimiser": sum(t.nbytes for state in states for t in state.values()),
    }


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("flags", "most"),
    [
        ((), 1.05),
        (("--use_peft", "true"), 1.05),
        (("--exact_speedups", "none"), 1.05),
        (("--bf16", "true"), 1.05),
        (("--max_tokens_per_micro_batch", 400), 1.05),
        (("--max_tokens_per_micro_batch", 400, "--activation_checkpointing", "true"), 1.1),
        # in a step of a single pass, the gradients are not whole yet when the activations are
        (("--activation_checkpointing", "true"), 1.15),
    ],
    ids=str,
)
@pytest.mark.usefixtures("small_logits")
def test_memory_of_a_real_step(model, tmp_path, flags, most):
    """Each exact part equals the real one. The peak of a training step is at most `most` times the real one."""
    trainer, seen = one_step(model, tmp_path, *SMALL, *FULL, *flags)
    parts = estimated(model, *SMALL, *FULL, *flags)
    real = measured(trainer, seen)
    assert {part.name.split(" (")[0] for part in parts.values() if part.exact} == {"weights", "gradients", "optimiser"}
    assert all(part.size == real[name] for name, part in parts.items() if part.exact)
    assert parts["KV cache"].size == pytest.approx(seen.cache, rel=0.05)
    estimated_peak = sum(parts[name].size for name in ("gradients", "activations", "LM head"))
    assert 0.98 < estimated_peak / seen.peak < most


@pytest.mark.parametrize("optim", memory._PLAIN_OPTIMIZERS)
def test_optimiser_states_and_reference_model_are_exact(model, tmp_path, optim):
    flags = (*SMALL, "--max_completion_length", 2, "--optim", optim, "--beta", 0.1)
    trainer, seen = one_step(model, tmp_path, *flags)
    parts, real = estimated(model, *flags), measured(trainer, seen)
    assert parts["optimiser"].exact and parts["reference model"].exact
    assert all(part.size == real[name] for name, part in parts.items() if part.exact)


@pytest.mark.parametrize("checkpointing", [None, {"use_reentrant": False}], ids=["", "checkpointing"])
def test_the_activations_of_a_pass_with_images_are_those_of_a_real_one(vision_processor, checkpointing):
    """Three rows with the images of the largest row of four. The rows of text with as many tokens take less."""
    form, processor = PromptFormat(), vision_processor
    inputs = form.image_inputs(pictures.rows(), processor)
    assert inputs["image_grid_thw"].tolist() == [[1, 4, 4], [1, 4, 6], [1, 2, 2]]  # row 2, with pictures 6, 7 and 8
    width = inputs["input_ids"].size(1) + 8
    options = {"scored": None, "fused": False, "masked": True, "autocast": None, "checkpointing": checkpointing}
    size = {"rows": 3, "tokens": width}
    estimated = fake_runs.FakeModel(meta(processor), images=inputs).pass_bytes(**size, **options)
    text = fake_runs.FakeModel(meta(processor)).pass_bytes(**size, **options)

    model = tiny_qwen_vl(processor.tokenizer).train()
    if checkpointing:
        model.activation_checkpointing_enable(checkpointing)
    pad = (0, 8)
    given = {
        "input_ids": torch.nn.functional.pad(inputs["input_ids"], pad, value=7).repeat(3, 1),
        "mm_token_type_ids": torch.nn.functional.pad(inputs["mm_token_type_ids"], pad).repeat(3, 1),
        "pixel_values": inputs["pixel_values"].repeat(3, 1),
        "image_grid_thw": inputs["image_grid_thw"].repeat(3, 1),
    }
    given["attention_mask"] = torch.ones_like(given["input_ids"])
    given["attention_mask"][0, -5:] = 0
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(fake_runs._drop_gradient)
    with fake_runs.Live(model.parameters()) as live:
        states = model.base_model(**given, use_cache=False).last_hidden_state
        states.backward(torch.zeros_like(states))
    assert estimated == pytest.approx(live.peak, rel=0.03)
    assert text < 0.8 * estimated


def meta(processor):
    with torch.device("meta"):
        return tiny_qwen_vl(processor.tokenizer)


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.usefixtures("small_logits")
def test_a_proposed_pass_fits_a_real_step_and_a_larger_one_does_not(model, tmp_path, checkpointing):
    """Compared to the estimate and to the measured peak, on a device with the memory for 8 of the longest rows."""
    rows = (*SMALL, *FULL, "--activation_checkpointing", str(checkpointing).lower())
    one = estimate(model, parsed(model, *rows))
    always = memory.in_phase("always", one.states)
    gradients = by_name(one.states)["gradients"].size
    device = always + gradients + one.training_pass.size(8 * one.training_pass.longest, checkpointing=checkpointing)
    tokens = one.training_pass.largest(one.room(device), checkpointing=checkpointing)
    assert 7.5 * one.training_pass.longest < tokens <= 8 * one.training_pass.longest
    for budget, fits in ((tokens, True), (int(1.3 * tokens), False)):
        flags = (*rows, "--max_tokens_per_micro_batch", budget)
        assert (memory.in_phase("training", estimate(model, parsed(model, *flags)).parts(device)) <= device) == fits
        seen = one_step(model, tmp_path / str(budget), *flags)[1]
        assert (always + seen.peak <= device) == fits


def test_checkpointing_saves_activations(model):
    assert (
        estimated(model, *SMALL, "--activation_checkpointing", "true")["activations"].size
        < estimated(model, *SMALL)["activations"].size / 2
    )


@pytest.mark.slow
def test_half_a_billion_parameters_are_counted_without_weights(tmp_path):
    """The shape of Qwen2.5-0.5B, which has 494,032,768 parameters."""
    shape = {
        "model_type": "qwen2",
        "architectures": ["Qwen2ForCausalLM"],
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    }
    (tmp_path / "config.json").write_text(json.dumps(shape))
    from gbpo.run.models.tiny import character_tokenizer

    character_tokenizer().save_pretrained(tmp_path)
    parsed_recipe = parsed(str(tmp_path), "--beta", 0.1, "--dtype", "bfloat16")
    skeleton = memory.skeleton(parsed_recipe, describe(str(tmp_path), parsed_recipe))
    assert skeleton.parameters == skeleton.trained == 494_032_768
    parts = by_name(memory.estimate(parsed_recipe, skeleton, 9).parts(CARD))
    assert parts["reference model"].size == parts["weights"].size == 2 * 494_032_768
    # keys and values × 24 layers × 2 heads × 64 × 2 bytes, for 256 completions of 13 tokens
    assert parts["KV cache"].size == 2 * 24 * 2 * 64 * 2 * 256 * 13


def test_lora_needs_no_reference_model(model):
    parts = estimated(model, "--use_peft", "true", "--beta", 0.1)
    assert "reference model" not in parts
    assert parts["gradients"].size < parts["weights"].size / 10


def zero(stage, **offload):
    settings = {"stage": stage, **{f"offload_{part}": {"device": "cpu"} for part in offload}}
    return SimpleNamespace(deepspeed_config={"zero_optimization": settings}, zero_stage=stage)


@pytest.mark.parametrize(("stage", "shares"), [(0, (1, 1, 1)), (1, (1, 1, 4)), (2, (1, 4, 4)), (3, (4, 4, 4))], ids=str)
def test_zero_shares(model, monkeypatch, stage, shares):
    whole = estimated(model)
    parsed_recipe = parsed(model)
    monkeypatch.setattr(type(parsed_recipe.training), "world_size", 4)
    parsed_recipe.training.deepspeed_plugin = zero(stage)
    parts = by_name(estimate(model, parsed_recipe).parts(CARD))
    assert parts["weights"].size == whole["weights"].size / shares[0]
    assert parts["gradients"].size == whole["gradients"].size / shares[1]
    # DeepSpeed keeps a float32 copy of the weights in addition to the two states of Adam
    assert parts["optimiser"].size == (whole["optimiser"].size + whole["weights"].size) / shares[2]
    assert ("gathered weights" in parts) == (stage == 3)


def test_model_init_kwargs_change_the_model(model):
    whole, small = (
        memory.skeleton(recipe, describe(model, recipe))
        for recipe in (parsed(model), parsed(model, "--model_init_kwargs", "{num_hidden_layers: 1, dtype: bfloat16}"))
    )
    layer = sum(parameter.numel() for parameter in whole.module.model.layers[0].parameters())
    assert small.parameters == whole.parameters - layer * (len(whole.module.model.layers) - 1)
    assert [{p.dtype for p in one.module.parameters()} for one in (whole, small)] == [{torch.float32}, {torch.bfloat16}]


SEVERAL = ("--gradient_accumulation_steps", "2")
ONE = ("--gradient_accumulation_steps", "1")
SYNC_EACH = ("--accelerator_config", "{gradient_accumulation_kwargs: {sync_each_batch: true}}")


@pytest.mark.parametrize(
    ("strategy", "flags", "whole"),
    [
        ("fsdp2", (*SEVERAL, "--bf16", "true"), 2),
        ("fsdp2", (*ONE, "--max_tokens_per_micro_batch", "120"), 4),
        ("fsdp2", (*SEVERAL, *SYNC_EACH), None),
        ("fsdp2", (*ONE, *SYNC_EACH, "--max_tokens_per_micro_batch", "120"), None),
        ("ddp", SEVERAL, 4),
    ],
    ids=str,
)
def test_gradients_of_two_ranks(in_two_processes, model, tmp_path, strategy, flags, whole):
    """Gradients between the passes of a step, with `whole` bytes per weight on every rank or else split in two."""
    output = tmp_path / "seen.json"
    script = Path(__file__).with_name("gradient_memory.py")
    in_two_processes(strategy, script, model, output, "--max_steps", "1", *flags)
    seen = json.loads(output.read_text())
    assert seen["strategy"] == {"fsdp2": "FSDP", "ddp": "MULTI_CPU"}[strategy]
    weights = sum(p.numel() for p in memory.skeleton(parsed(model), describe(model, parsed(model))).module.parameters())
    estimated_size, exact = seen["parts"]["gradients"]
    assert estimated_size == (weights * whole if whole else weights * 4 / 2)
    assert len(seen["before"]) == 2
    assert seen["before"][-1] == pytest.approx(estimated_size, rel=0 if exact else 0.01)
    assert ("DDP buckets" in seen["parts"]) == (strategy == "ddp")
    if strategy == "ddp":
        assert seen["parts"]["DDP buckets"][0] == pytest.approx(seen["buckets"][0], rel=1e-3)


QWEN = {  # the shape of Qwen2.5-Math-1.5B, Qwen2.5-Coder-1.5B-Instruct and Qwen2.5-1.5B-Instruct
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}
CARDS = dict.fromkeys(("qwen_math", "qwen_math_ahead", "qwen_code", "qwen_judge", "qwen_ttrl"), 80e9)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "card"), [*CARDS.items(), ("qwen_math_lora", 24e9)])
def test_a_recipe_fits_on_each_of_several_gpus(name, card, monkeypatch):
    """DDP keeps a copy of the gradients, which one process does not have. The cards are those of the headers."""
    monkeypatch.setattr("gbpo.run.recipe.checks.find_spec", lambda package: package)  # vLLM is not installed here
    recipe = parse([str(ROOT / "recipes" / f"{name}.yaml"), "--attn_implementation", "sdpa"])
    monkeypatch.setattr(type(recipe.training), "world_size", 8)
    skeleton = memory.skeleton(recipe, Description(Qwen2Config(**QWEN), Qwen2ForCausalLM, None))
    found = memory.estimate(recipe, skeleton, prompt_tokens=800)
    assert "DDP buckets" in {part.name for part in found.states}
    assert found.fits(card), f"{memory.gibibytes(memory.peak(found.parts(card)))} do not fit"


def test_gradients_of_fsdp_are_split_if_a_step_has_one_pass(model, monkeypatch):
    for name, value in {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(type(parsed(model).training), "world_size", 2)
    whole, split = (estimated(model, *flags) for flags in (SEVERAL, ONE))
    assert split["gradients"].size == split["weights"].size == whole["gradients"].size / 2
    assert "sync_each_batch: true" in whole["gradients"].note and "sync_each_batch" not in split["gradients"].note
    layers = memory.skeleton(parsed(model), describe(model, parsed(model))).module.model.layers
    layer = sum(p.nbytes for p in layers[0].parameters())
    # two layers at a time, and what is outside the 4 layers
    assert split["gathered layers"].size == 2 * split["weights"].size - 2 * layer
    monkeypatch.setenv("FSDP_RESHARD_AFTER_FORWARD", "false")
    assert estimated(model, *ONE)["gathered layers"].size == 2 * split["weights"].size


def test_a_sharded_pass_keeps_no_copy_of_the_weights_in_bfloat16(model, monkeypatch):
    """The weights of a pass under FSDP and ZeRO are in bfloat16 already. Elsewhere autocast copies the linear ones."""
    flags = (*SMALL, "--bf16", "true")
    whole = estimated(model, *flags)["activations"].size
    recipe = parsed(model, *flags)
    recipe.training.deepspeed_plugin = zero(2)
    monkeypatch.setattr(type(recipe.training), "world_size", 4)
    sharded = by_name(estimate(model, recipe).passes)["activations"].size
    linear = 4 * (128 * (128 + 64 + 64 + 128) + 3 * 128 * 256)  # 4 layers: q, k, v, o and three of the MLP
    assert whole - sharded >= 2 * linear


def test_buffers_of_zero(model, monkeypatch):
    """DeepSpeed's buffer for 5e8 gradients, doubled if it reduces during the backward pass, and what ZeRO-3 gathers."""
    recipe = parsed(model)
    monkeypatch.setattr(type(recipe.training), "world_size", 4)
    sizes = {}
    for stage, more in ((1, {}), (2, {"overlap_comm": True}), (3, {"reduce_bucket_size": 1000})):
        recipe.training.deepspeed_plugin = zero(stage)
        recipe.training.deepspeed_plugin.deepspeed_config["zero_optimization"] |= more
        parts = by_name(estimate(model, recipe).parts(CARD))
        sizes[stage] = parts["reduce bucket"].size, "gathered layers" in parts
    assert sizes == {1: (2e9, False), 2: (4e9, False), 3: (4000, True)}


def test_the_skeleton_is_not_sharded_under_zero_3(model, monkeypatch):
    """Under ZeRO-3 transformers shards every model that it builds, which does not work on "meta"."""
    monkeypatch.setattr(deepspeed, "_hf_deepspeed_config_weak_ref", None)
    whole = memory.skeleton(parsed(model), describe(model, parsed(model))).parameters
    config = Zero3()
    deepspeed.set_hf_deepspeed_config(config)
    parsed_recipe = parsed(model)
    assert memory.skeleton(parsed_recipe, describe(model, parsed_recipe)).parameters == whole
    assert deepspeed.is_deepspeed_zero3_enabled()  # the model that is trained will be sharded


class Zero3:
    config: ClassVar = {}

    def is_zero3(self):
        return True


def test_offloaded_parts_do_not_count_on_the_device(model):
    parsed_recipe = parsed(model)
    parsed_recipe.training.deepspeed_plugin = zero(3, param=True, optimizer=True)
    sharding = memory.Sharding.of(parsed_recipe.training)
    assert sharding.weights_offloaded and sharding.optimizer_offloaded
    parts = [memory.Part("weights", 8, offloaded=True), memory.Part("activations", 4, phase="training")]
    assert memory.peak(parts) == 4


def test_fsdp2_from_the_environment(model, monkeypatch):
    for name, value in {
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "FSDP_RESHARD_AFTER_FORWARD": "true",
        "FSDP_OFFLOAD_PARAMS": "true",
    }.items():
        monkeypatch.setenv(name, value)
    args = parsed(model).training
    monkeypatch.setattr(type(args), "world_size", 2)
    assert memory.Sharding.of(args) == memory.Sharding("FSDP2", 2, 2, 2, True, True, upcast=True)
    monkeypatch.setenv("FSDP_RESHARD_AFTER_FORWARD", "false")
    assert not memory.Sharding.of(args).reshards


def vllm(*flags):
    return (*SMALL, "--use_vllm", "true", "--vllm_mode", "colocate", *flags)


@pytest.fixture
def with_vllm(monkeypatch):
    """Lets recipes with vLLM be parsed if it is not installed."""
    monkeypatch.setattr("gbpo.run.recipe.checks.find_spec", lambda name: name)


def test_vllm_share(model, with_vllm):
    recipe = parsed(model, *vllm("--vllm_gpu_memory_utilization", 0.3, "--bf16", "true"))
    one = estimate(model, recipe)
    weights = memory.skeleton(recipe, describe(model, recipe)).parameters * 2  # bfloat16, as the trainer computes
    # keys and values × 4 layers × 2 heads × 32 × 2 bytes, for 9 + 48 tokens
    assert one.vllm == memory.VllmShare(0.3, weights, 2 * 4 * 2 * 32 * 2 * 57, 32, "always")
    card = 10 * weights
    engine, cache = one.vllm.parts(card)
    assert (engine.size, cache.size) == (weights, pytest.approx(2 * weights))  # 0.3 of the card, less the weights
    assert f"{int(2 * weights // one.vllm.completion)} completions of full length at once, of 32" in cache.note
    assert one.vllm.lacks(card) is None and "weights take" in one.vllm.lacks(3 * weights)
    assert "KV cache of one completion" in one.vllm.lacks(weights / 0.3 * 1.001)
    assert memory.peak(one.parts(2 * card)) - memory.peak(one.parts(card)) == pytest.approx(0.3 * card)


def test_a_sleeping_engine_uses_memory_during_generation_only(model, with_vllm):
    flags = vllm("--vllm_gpu_memory_utilization", 0.5)
    awake, asleep = (
        estimate(model, parsed(model, *flags, *more)) for more in ((), ("--vllm_enable_sleep_mode", "true"))
    )
    assert awake.room(1e9) == pytest.approx(asleep.room(1e9) - 0.5e9)
    assert memory.in_phase("generation", awake.parts(1e9)) == memory.in_phase("generation", asleep.parts(1e9))


def test_tensor_parallel_splits_vllm(model, with_vllm, monkeypatch):
    one = estimate(model, parsed(model, *vllm())).vllm
    recipe = parsed(model, *vllm())
    recipe.training.vllm_tensor_parallel_size = 4  # on 4 ranks; the model has 2 heads of keys and values
    monkeypatch.setattr(type(recipe.training), "world_size", 4)
    split = estimate(model, recipe).vllm
    assert (split.weights, split.completion) == (one.weights / 4, one.completion / 2)


def test_without_a_gpu_the_smallest_usual_card_is_named(model):
    """A GPU recipe gets bfloat16, the CUDA context and fragmentation; the card is the first that is large enough."""
    recipe = parsed(model, *SMALL)
    recipe.given -= {"use_cpu", "bf16"}
    recipe.training.bf16 = False  # as on a machine without a GPU
    assert device_here(recipe) is None
    one = estimate(model, recipe)
    assert by_name(one.parts(0))["CUDA context"].size == 2**29
    assert precision(recipe) is torch.bfloat16 and precision(parsed(model, *SMALL)) is None
    for extra, needs in ((0, "a card of 24 GB"), (23e9, "a card of 24 GB"), (24e9, "a card of 40 GB")):
        larger = replace(one, states=(*one.states, memory.Part("more", extra)))
        assert larger.verdict(None).endswith(f"there is no GPU here, and the run needs {needs}")
    larger = replace(one, states=(*one.states, memory.Part("more", 150e9)))
    assert larger.verdict(None).endswith("needs more than a card of 141 GB")


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["gbpo", "grpo"])
def test_what_does_not_fit_is_a_hazard_with_a_value_that_fits(model, with_vllm, algorithm):
    """The device has room for a pass over 5 rows of the 32 and a few tokens, and the hazard proposes 5 rows."""
    flags = (
        "--algorithm",
        algorithm,
        *vllm("--vllm_gpu_memory_utilization", 0.001, "--vllm_enable_sleep_mode", "true"),
    )
    one = estimate(model, parsed(model, *flags))
    five = memory.in_phase("training", one.states) + one.training_pass.size(5 * 57 + 5, checkpointing=False)
    device = Device("the GPU", five)
    plain, checkpointed = (one.training_pass.largest(one.room(five), checkpointing=on) for on in (False, True))
    engine, training = hazards.of_memory(one, device, plain, checkpointed)
    assert "vllm_gpu_memory_utilization=0.001 gives vLLM" in engine and "would not start" in engine
    assert 285 <= plain <= 290
    proposed = f"max_tokens_per_micro_batch: {plain}" if algorithm == "gbpo" else "per_device_train_batch_size: 5"
    assert training.startswith("per_device_train_batch_size=32: training needs about") and "but the GPU has" in training
    assert training.endswith(f"Write {proposed}.")
    (only,) = hazards.of_memory(one, device, 0, checkpointed)[1:]
    assert f"Write activation_checkpointing: true and {proposed.split(':')[0]}" in only
    assert "Not even one row fits" in hazards.of_memory(one, device, 0, 0)[1]
    assert hazards.of_memory(one, Device("the GPU", 1e12), plain, checkpointed) == []


def test_generation_that_does_not_fit_is_a_hazard(model):
    one = estimate(model, parsed(model, *SMALL))
    one = replace(one, states=(*one.states, memory.Part("larger cache", 1e9, phase="generation")))
    between = memory.peak(one.parts(0)) - 1
    (found,) = hazards.of_memory(one, Device("this machine", between), 1, 1)
    assert "generation_batch_size=32" in found and found.endswith("Write a smaller one, or use_vllm: true.")


def test_fragmentation_of_a_gpu(model):
    """15 % of what the allocator reserves for a pass is not usable: 0.15 / 0.85 of the pass."""
    recipe = parsed(model, *SMALL)
    recipe.given.remove("use_cpu")
    parts = by_name(estimate(model, recipe).passes)
    used = parts["activations"].size + parts["LM head"].size
    assert parts["fragmentation"].size / (parts["fragmentation"].size + used) == pytest.approx(0.15)
    assert "fragmentation" not in estimated(model, *SMALL)


def test_the_peak_is_that_of_generation_or_of_training():
    always, generation, training = (
        memory.Part("weights", 5),
        memory.Part("KV cache", 9, phase="generation"),
        memory.Part("activations", 2, phase="training"),
    )
    assert memory.peak([always, generation, training]) == 14
    assert memory.peak([always, training, memory.Part("vLLM engine", None)]) == 7


def test_four_bits(model):
    """Half a byte per weight and a float32 scale per 64 weights, for linear layers only."""
    parsed_recipe = parsed(model, "--use_peft", "true")
    skeleton = memory.skeleton(parsed_recipe, describe(model, parsed_recipe))
    before = sum(memory._weight_bytes(parsed_recipe, skeleton.module, memory.Sharding("one process")).values())
    parsed_recipe.model.load_in_4bit = True
    after = sum(memory._weight_bytes(parsed_recipe, skeleton.module, memory.Sharding("one process")).values())
    linear = 4 * (128 * (128 + 64 + 64 + 128) + 3 * 128 * 256)  # 4 layers: q, k, v, o and three of the MLP
    adapters = skeleton.trained
    assert before - after == linear * (4 - 0.5 - 4 / 64) + adapters * (4 - 2)


def test_a_part_of_unknown_size_gives_the_reason(model):
    part = estimated(model, "--optim", "adafactor")["optimiser"]
    assert part.size is None and "adafactor" in part.note
