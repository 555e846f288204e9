"""`BridgeTrainer`: the one class that overrides methods of TRL, transformers and accelerate, or patches their names."""

import random
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import DataLoaderShard
from accelerate.utils import DistributedType, gather_object, set_seed
from transformers import PreTrainedModel, masking_utils
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints
from trl import GRPOTrainer
from trl.generation import vllm_generation
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.utils import split_pixel_values_by_grid, split_tensor_dict, unsplit_pixel_values_by_grid

from ..shared.stopping import TrainingStopped
from .checkpoints import load_renamed_weights, load_rollout_state, plain_logs, save_rollout_state, written_whole
from .guards.finite_rewards import check_rewards
from .guards.finite_steps import FiniteSteps
from .guards.logged_calls import with_text_arguments
from .guards.phase_times import PhaseTimes
from .guards.ratio_metrics import ratio_metrics
from .guards.sampler_gap import sampler_gap_metrics
from .guards.staleness import first_use_metrics, staleness_metrics
from .guards.vllm_weights import WeightCheck, engine_dtype
from .passes.anchor import Anchor
from .passes.batch import IMAGE_KEYS, Pass, policy_mask, rows_of, with_tensors
from .passes.capabilities import decoder_of
from .passes.plan import PassPlan
from .passes.run import Scorer
from .passes.shared_prompts import generate_after_prefixes, once_per_group
from .passes.speedups import SPEEDUPS, Speedups
from .rollout_log import RolloutLog, Scores
from .sampling.adapter_sync import AdapterSync
from .sampling.ahead import Ahead
from .sampling.background import BackgroundRewards, decoded
from .sampling.curriculum import Curriculum
from .sampling.delay_line import Completions, Generation, PromptOrder, as_batch, done
from .sampling.extra_votes import ExtraVotes
from .sampling.merged_weights import has_mergeable_adapter, merged_weights
from .sampling.resampling import Resampling
from .sampling.seeds import SamplingSeeds, random_state
from .sampling.vllm_client import SeededClient, readable_errors

Batch = dict[str, Any]


class BridgeTrainer(GRPOTrainer):
    """TRL's GRPOTrainer with calls to the parts of this project, for example to `resampling`.

    The parts are plain objects. `BaseTrainer` sets them. The defaults here do nothing. For one generation, the methods
    below call the parts in this order:

    1. `phase_times` starts its clock; it runs for the whole training step.
    2. `sampling_seeds` seeds the vLLM engine, prompts are tokenized once per group, and prompts are shared.
    3. `extra_votes` generates further completions for rewards that vote.
    4. TRL calculates the rewards and the advantages. `check_rewards` refuses infinite rewards. `curriculum` records how
       often each prompt was solved.
    5. `weight_check` compares vLLM's log-probs with the trainer's.
    6. `add_targets` (GBPO) reads the advantages of all ranks.
    7. `resampling` replaces groups without signal; steps 2 to 6 run for each draw of new prompts.
    8. `pass_plan` (GBPO) arranges the rows into passes.
    9. `scorer` computes old log-probs, if `anchor` needs them and TRL has not computed them, for all passes except
       those of the next optimiser step. The passes of that step compute their old log-probs themselves.

    With `difficulty`, `curriculum` chooses the prompts in place of the data loader, which then only counts steps.

    With `generate_ahead`, a later generation is sampled first, with the parts in `ahead`. A server samples and grades
    it in the background. Its prompts come from `curriculum` or from the order of the data loader, and `weight_check`
    compares its log-probs. Steps 2 to 4 then read completions and rewards that were computed before.

    For one optimiser step, `scorer` computes the log-probs of each pass, `anchor` gives the old log-probs and vLLM's
    importance ratio, and `pass_loss` (GBPO) computes the loss. After the last backward, `ratio_metrics`,
    `sampler_gap_metrics`, `finish_step` (GBPO), `rollout_log` and `finite_steps` read the results of all passes.
    `rollout_log` also records the completions of each draw after step 6.
    """

    phase_times = PhaseTimes()
    extra_votes = ExtraVotes()
    finite_steps = FiniteSteps()
    speedups = Speedups(dict.fromkeys(SPEEDUPS, "not decided yet"))
    anchor = Anchor()
    take_tool_timeouts: Callable[[], int] | None = None  # calls of tools abandoned since it was last called
    resampling: Resampling | None = None
    sampling_seeds: SamplingSeeds | None = None
    weight_check: WeightCheck | None = None
    curriculum: Curriculum | None = None
    ahead: Ahead | None = None
    adapter_sync: AdapterSync | None = None
    scorer: Scorer | None = None
    pass_plan: PassPlan | None = None
    rollout_log: RolloutLog | None = None

    # passes that were run since the last optimiser step, with their log-probs and ratios
    _ran: tuple[tuple[Pass, torch.Tensor, torch.Tensor], ...] = ()
    _unfinished: Path | None = None  # folder of the checkpoint that is being saved
    _train_sampler: Any = ()  # stays empty for an iterable data set
    _not_restored: str | None = None  # checkpoint whose random states transformers has not loaded yet
    _used: Generation | None = None  # the generation of the delay line that is being scored
    _leave_out_old_logps = False
    _micro_batch: Batch | None = None  # what TRL's own loss gets; the forward pass of the loss completes it
    _last_logps: Any = None  # log-probs of that forward pass
    _buffered_inputs: Any

    def __init__(self, *args, **kwargs):
        # TRL calls methods of the model by their old names, which a user cannot change
        old_names = "`(is_gradient_checkpointing|gradient_checkpointing_(enable|disable))`"
        warnings.filterwarnings("ignore", old_names, FutureWarning, "transformers.modeling_utils")
        llm: Any = getattr(vllm_generation, "LLM", None)  # absent if vLLM is not installed

        def start_engine(**options):
            dtype = engine_dtype(self.model.dtype, self.accelerator.mixed_precision)
            return llm(dtype=str(dtype).removeprefix("torch."), **options)

        # TRL passes no dtype to the engine, so the engine would use the dtype of the checkpoint
        with _replaced(vllm_generation, LLM=start_engine), readable_errors():
            super().__init__(*args, **kwargs)
        if self.use_vllm:
            set_seed(self.args.seed, device_specific=True)  # TRL did this before the engine, which set another seed
            if getattr(self.vllm_generation, "vllm_client", None) is not None:
                self.vllm_generation.vllm_client = SeededClient(self.vllm_generation.vllm_client)
            if self._dist.fsdp_version == 1:
                raise ValueError(
                    "fsdp_version=1 with use_vllm=True: TRL 1.16 sends the weights of each layer before FSDP has "
                    "prepared the whole model, so the first forward pass would fail. Write fsdp_version: 2, or launch "
                    "with launch/accelerate/fsdp2.yaml."
                )
            if has_mergeable_adapter(self.model) and not self.is_distributed_loading_by_transformers:
                weights_for_vllm = self.vllm_generation._iter_named_params
                self.vllm_generation._iter_named_params = partial(self._merged_weights, weights_for_vllm)

    # --- what GBPO adds

    def add_targets(self, batch: Batch, advantages: torch.Tensor) -> Batch:
        """Add the tensors that the loss needs beside TRL's to a scored generation.

        Args:
            batch: The generation of this rank.
            advantages: Advantages of all ranks, (B_global,); NaN for completions that no reward function scored.
        """
        return batch

    def as_pass(self, batch: Batch) -> Pass:
        """One pass with all rows of one of TRL's micro-batches."""
        return Pass.from_batch(batch)

    def pass_loss(
        self, one: Pass, logps: torch.Tensor, entropies: torch.Tensor, aux_loss: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss of a pass (a scalar) and its probability ratios, (B, T), or (B, 1) at sequence level."""
        raise NotImplementedError

    def finish_step(self) -> None:
        """Log the metrics that the passes of an optimiser step, or of an evaluation batch, have collected."""

    # --- data

    def get_train_dataloader(self):
        loader = super().get_train_dataloader()
        if isinstance(loader, DataLoaderShard):
            loader.device = None  # rows are text; accelerate would look for tensors in them at every micro-batch
        return loader

    # --- generation and rewards

    def _prepare_inputs(self, generation_batch):
        before = self._buffered_inputs
        begins = before is None or self._step % self._generate_every == 0
        if self.curriculum is not None and self.model.training and begins:
            generation_batch = self.curriculum.begin(self._step // self._generate_every)
        if self.ahead is not None and self.model.training and begins:
            self._used = self._sample_ahead(self.ahead)
        inputs = super()._prepare_inputs(generation_batch)
        self._used = None
        slot = self._step % self.args.steps_per_generation
        if self.model.training and self._buffered_inputs is not before:
            if self.pass_plan is not None:
                self._buffered_inputs = self._planned(self.pass_plan, self._buffered_inputs)
            self._add_old_logps(slot)
        if self.pass_plan is None:
            return inputs
        return self._buffered_inputs[slot] if self.model.training else [self.as_pass(inputs)]

    def _generate_and_score_completions(self, inputs):
        if self._records is not None:
            self._records.begin(self._step // self._generate_every, self.state.global_step + 1)
        batch, advantages = self._scored(inputs)
        if self.resampling is not None and self.model.training:
            batch = self.resampling.fill(batch, advantages, self._scored_unrecorded, self._step, self._log)
        if self.take_tool_timeouts is not None:
            abandoned = torch.tensor(float(self.take_tool_timeouts()), device=self.accelerator.device)
            self._log("gbpo/tool_timeouts", self.accelerator.reduce(abandoned).item())
        if self.curriculum is not None and self.model.training:
            for name, value in self.curriculum.metrics().items():
                self._log(name, value)
        if self._records is not None:
            self._records.keep(batch["numbers"])
        if self.pass_plan is not None:
            batch["rows"] = rows_of(batch)
        return batch

    def _scored(self, inputs: list[dict[str, Any]]) -> tuple[Batch, Any]:
        """One scored generation of this rank, and the advantages of all ranks (None if no part needs them)."""
        leaves_out = self._uses_old_logps and (self.anchor.is_sampler or self._finds_old_logps)
        self._leave_out_old_logps = leaves_out
        version = self.state.global_step
        if self._used is not None and self._used.rounds:  # none are left when further groups are drawn
            version = self._used.version
        # TRL would compute old log-probs for its correction; `anchor` corrects without them
        with self._with(vllm_importance_sampling_correction=False), self._own_logs() as logs:
            batch = super()._generate_and_score_completions(inputs)
        for log in (self._logs["prompt"], self._logs["completion"]):  # without tools, a model may write calls too
            log.extend([with_text_arguments(log.popleft()) for _ in range(len(log))])
        if leaves_out:
            del batch["old_per_token_logps"]
        if self.ahead is not None:
            batch["versions"] = torch.full_like(batch["advantages"], version, dtype=torch.long)
            if "sampling_per_token_logps" not in batch and self.model.training:  # transformers sampled these now
                batch["sampling_per_token_logps"] = self._sampler_logps(batch)
        elif self.weight_check is not None and self.model.training and "sampling_per_token_logps" in batch:
            self._check_engine(self.weight_check, batch)
        advantages = None
        if self.pass_plan is not None or self.resampling is not None:
            advantages = self.accelerator.gather(batch["advantages"])  # (B_global,); groups may span ranks
            batch = self.add_targets(batch, advantages.masked_fill(~self._is_scored, torch.nan))
        if self._records is not None:
            batch["numbers"] = self._records.add_draw(logs, batch, version)
        return batch, advantages

    @property
    def _records(self) -> RolloutLog | None:
        """The log of completions, except in evaluation, which it does not record."""
        return self.rollout_log if self.model.training else None

    @property
    def _uses_old_logps(self) -> bool:
        """Whether several optimiser steps use a generation, so that old log-probs differ from the policy's."""
        return self.args.gradient_accumulation_steps % self._generate_every != 0

    @property
    def _generate_every(self) -> int:
        """Micro-batches from one generation to the next."""
        return self.args.steps_per_generation * self.num_iterations

    @property
    def _finds_old_logps(self) -> bool:
        """Whether old log-probs come from the first optimiser step on a generation. TRL then does not compute them."""
        return "reuse_first_pass" in self.speedups

    def _scored_unrecorded(self, inputs: list[dict[str, Any]]) -> Batch:
        with self._unrecorded():
            return self._scored(inputs)[0]

    def _check_engine(self, check: WeightCheck, batch: Batch) -> None:
        server = getattr(self.vllm_generation, "vllm_client", None)
        gone = torch.tensor(float(server is not None and server.was_gone()), device=self.accelerator.device)
        if self.args.vllm_mode == "server" and self.accelerator.reduce(gone).item():
            check.proven = False
        self._check_rows(check, batch, self._first_micro_batch)

    def _check_rows(self, check: WeightCheck, batch: Batch, some_rows: Callable[[Batch], Batch]) -> None:
        for name, value in check.check(batch, some_rows, self._policy_logps, self.state.global_step).items():
            self._log(name, value)

    def _first_micro_batch(self, batch: Batch) -> Batch:
        """The rows of the first of the micro-batches into which TRL splits a generation."""
        chunks = split_tensor_dict(split_pixel_values_by_grid(batch), self.args.steps_per_generation)
        return unsplit_pixel_values_by_grid(chunks[0])

    @torch.no_grad()
    def _policy_logps(self, batch: Batch) -> torch.Tensor:
        """The trainer's log-probs of the completions of a batch, (B, T); random states stay as they are."""
        with random_state(self.args.seed, self.accelerator.device):
            return self._get_per_token_logps_and_entropies(
                self.model,
                torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1),
                torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1),
                batch["completion_ids"].size(1),
                batch_size=self.args.per_device_train_batch_size,
                **{key: batch[key] for key in IMAGE_KEYS if key in batch},
            )[0]

    def _sampler_logps(self, batch: Batch) -> torch.Tensor:
        """The log-probs of the policy from which transformers samples now, (B, T)."""
        with self._sampling_precision():
            return self._policy_logps(batch)

    @contextmanager
    def _sampling_precision(self) -> Iterator[None]:
        """Within this context, the model computes in `sampling_dtype`. This leaves its weights as they are."""
        dtype = getattr(self.args, "sampling_dtype", None)
        if dtype is None:
            yield
            return
        with torch.autocast(self.accelerator.device.type, dtype=getattr(torch, dtype), cache_enabled=False):
            yield

    def _generate(self, prompts):
        with self.phase_times.measure("generate", counts=self.model.training), readable_errors():
            if self.sampling_seeds is None:
                return super()._generate(prompts)
            mode = "train" if self.model.training else "eval"
            stream = self.sampling_seeds.next_stream(self.state.global_step, mode)
            if self.use_vllm and getattr(self.vllm_generation, "vllm_client", None) is not None:
                self.vllm_generation.vllm_client.stream = stream
            with random_state(stream.getrandbits(31), self.accelerator.device):
                return super()._generate(prompts)

    def _tokenize_prompts(self, prompts):
        """Text prompts are tokenized once per group."""
        if self._is_vlm:
            prompt_ids, images, fields = super()._tokenize_prompts(prompts)
            return prompt_ids, images, with_tensors(fields)
        if self.environment_factories is not None:  # tools that differ between rows
            return super()._tokenize_prompts(prompts)
        return once_per_group(super()._tokenize_prompts, prompts)

    def _generate_single_turn(self, prompt_ids, *args, **kwargs):
        if self._used is not None and self._used.rounds:
            with self.phase_times.measure("wait"):
                return self._used.next_round(prompt_ids)
        if self.use_vllm and (self.ahead is not None or self.adapter_sync is not None):
            self._send_weights()
        with self._shared_prefill(), self._sampling_precision():
            return super()._generate_single_turn(prompt_ids, *args, **kwargs)

    def _merged_weights(
        self, weights_for_vllm: Callable[[], Iterator[tuple[str, torch.Tensor]]]
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """The names and weights that TRL sends to vLLM, with the adapter merged into copies of the weights."""
        dtype = engine_dtype(self.model.dtype, self.accelerator.mixed_precision)
        generator = torch.Generator(self.accelerator.device).manual_seed(self.state.global_step)
        with _replaced(self.model, merge_adapter=lambda: None, unmerge_adapter=lambda: None):
            yield from merged_weights(self.model, weights_for_vllm(), dtype, generator)

    @contextmanager
    def _shared_prefill(self) -> Iterator[None]:
        """Within this context, the model's `generate` runs each prompt once for all of its completions."""
        model = self.accelerator.unwrap_model(self.model_wrapped) if "share_prompts" in self.speedups else None
        if model is None or "generate" in vars(model):  # replaced by another library, which may have its own cache
            yield
            return
        model.generate = generate_after_prefixes(model.generate, decoder_of(model))
        try:
            yield
        finally:
            del model.generate

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        with self.phase_times.measure("reward", counts=self.model.training):
            votes = self._vote if self.model.training else None
            inputs = self.extra_votes.add(inputs, prompts, votes)
            with self._with(**self._rewards_computed_ahead()):
                rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        if self._records is not None:
            self._records.graded(inputs, completion_ids_list)
        check_rewards(rewards, self.reward_func_names, lambda: gather_object(prompts))
        if self.curriculum is not None and self.model.training:
            self.curriculum.record(rewards)
        self._is_scored = ~rewards.isnan().all(dim=1)  # (B_global,)
        return rewards

    def _vote(self, prompts: list[Any]) -> list[Any]:
        """One further completion for each prompt."""
        with self._unrecorded():
            return self._generate(prompts)[3]

    @contextmanager
    def _unrecorded(self) -> Iterator[None]:
        """Within this context, generations change no log of completions and no metric except `num_tokens`."""
        metrics, logs = self._metrics["train"], self._logs
        self._metrics["train"] = defaultdict(list)
        self._logs = {name: _copied(log) for name, log in logs.items()}
        try:
            yield
        finally:
            self._metrics["train"], self._logs = metrics, logs
        metrics["num_tokens"] = [self.state.num_input_tokens_seen]

    @contextmanager
    def _own_logs(self) -> Iterator[dict[str, Any]]:
        """Within this context, TRL's log of completions holds only those that the context adds."""
        logs = self._logs
        self._logs = {name: _copied(log, clear=True) for name, log in logs.items()}
        try:
            yield self._logs
        finally:
            own, self._logs = self._logs, logs
            _extend(logs, own)

    @contextmanager
    def _with(self, **attributes: Any) -> Iterator[None]:
        """Within this context, the given attributes of the trainer have other values."""
        before = {name: getattr(self, name) for name in attributes}
        self.__dict__.update(attributes)
        try:
            yield
        finally:
            self.__dict__.update(before)

    # --- sampling ahead

    def _sample_ahead(self, ahead: Ahead) -> Generation:
        """Sample the generations that are due when the training on a generation begins. Return the one to use now."""
        number = self._step // self._generate_every
        self._settle()
        micro_batches = self.state.max_steps * self.args.gradient_accumulation_steps
        check = self.weight_check
        for missing in ahead.line.missing(number, last=(micro_batches - 1) // self._generate_every):
            to_do = check if check is not None and not check.proven else None
            ahead.line.append(self._sampled_ahead(ahead, missing, to_do))
            check = None  # one check for each sync
        return ahead.line.take(number)

    def _settle(self) -> None:
        """Wait until the server has sampled all that it was asked for ahead. Then its weights may change."""
        if self.ahead is None:
            return
        with self.phase_times.measure("wait", counts=self.model.training), readable_errors():
            was_there = self.ahead.settle()
        if not was_there:
            raise TrainingStopped(
                "The vLLM server was gone while it sampled ahead, so it may have sampled with other weights. Resume "
                "this run from its last checkpoint, which sends the trained weights to the server."
            )

    def _send_weights(self) -> None:
        """Send the weights to vLLM if they have changed, or only the adapter.

        The main process sends them when no process waits for completions. The others ask for more when all are sent.
        """
        if self.state.global_step == self._last_loaded_step:
            return
        self._settle()
        self.accelerator.wait_for_everyone()
        if self.adapter_sync is None:
            self.vllm_generation.sync_weights()
        else:
            name = self.adapter_sync.send(self.state.global_step)
            if self.ahead is not None and self.ahead.background is not None:
                self.ahead.background.client.use_adapter(name)
        self.accelerator.wait_for_everyone()
        self._last_loaded_step = self.state.global_step

    def _sampled_ahead(self, ahead: Ahead, number: int, check: WeightCheck | None) -> Generation:
        """Sample a generation with the weights of now, or ask the server for it in the background.

        Args:
            ahead: The parts that sample ahead.
            number: Number of the generation.
            check: Compares the log-probs of some completions, if it is given.
        """
        rows = ahead.prompts.rows(number)
        prompts = [row["prompt"] for row in rows]
        prompt_ids = self._tokenize_prompts(prompts)[0]
        first_used = number * self._generate_every // self.args.gradient_accumulation_steps  # an optimiser step
        rounds = 1 + (self.extra_votes.rounds or 0)
        streams = [ahead.seeds.stream(first_used, "train", i) for i in range(rounds)]
        generation = Generation(number, self.state.global_step, prompt_ids, rounds=[])
        background = ahead.background
        if background is None:
            generation.rounds += [done(self._sampled_in_turn(prompt_ids, stream, number)) for stream in streams]
            if check is not None:
                self._check_ahead(check, prompt_ids, generation.rounds[0].result())
            return generation
        with self.phase_times.measure("generate"), readable_errors():
            self._send_weights()
            if check is not None:
                probed = background.probe(prompt_ids, ahead.seeds.stream(first_used, "probe", 0))
                self._check_ahead(check, prompt_ids, probed)
        decode = partial(decoded, background.tokenizer, prompts, prompt_ids)
        generation.rewards = BackgroundRewards(
            self.reward_funcs, rows, decode, getattr(self, "async_loop", None), self.state
        )
        for i, stream in enumerate(streams):
            stream.getrandbits(31)  # `_generate` seeds the random states with this number
            arrived = generation.rewards.add if i == 0 else None
            generation.rounds.append(background.sample(prompt_ids, stream, arrived))
        return generation

    def _sampled_in_turn(self, prompt_ids: list[list[int]], stream: random.Random, number: int) -> Completions:
        """Sample one completion per prompt. The trainer computes the log-probs that transformers does not give.

        Transformers samples generation 0 with the random state of the run, as it does without `generate_ahead`.
        """
        device = self.accelerator.device
        seeds = random_state(stream.getrandbits(31), device) if self.use_vllm or number else nullcontext()
        with self.phase_times.measure("generate"), seeds:
            ids, logps = self._generate_single_turn(prompt_ids, None, {}, self.num_generations)
        if logps is None:
            batch = as_batch(prompt_ids, Completions(ids, []), self._tokenizer.pad_token_id, device)
            rows = self._sampler_logps(batch).tolist()
            logps = [row[: len(some)] for row, some in zip(rows, ids, strict=True)]
        return Completions(ids, logps)

    def _check_ahead(self, check: WeightCheck, prompt_ids: list[list[int]], completions: Completions) -> None:
        """Check the weights of the engine by the completions of as many prompts as a micro-batch has."""
        count = min(self.args.per_device_train_batch_size, len(completions.ids))
        some = Completions(completions.ids[:count], completions.logps[:count])
        batch = as_batch(prompt_ids[:count], some, self._tokenizer.pad_token_id, self.accelerator.device)
        self._check_rows(check, batch, lambda rows: rows)

    def _rewards_computed_ahead(self) -> dict[str, Any]:
        """The attribute of the reward functions, if some of them were computed in the background."""
        if self._used is None or self._used.rewards is None:
            return {}
        rewards, self._used.rewards = self._used.rewards, None
        with self.phase_times.measure("wait"):
            return {"reward_funcs": rewards.functions(self.reward_funcs)}

    # --- forward and backward

    def _get_per_token_logps_and_entropies(
        self,
        model,
        input_ids,
        attention_mask,
        logits_to_keep,
        batch_size=None,
        compute_entropy=False,
        compute_aux_loss=False,
        **images,
    ):
        if self._leave_out_old_logps:  # TRL's first call for a generation; the first optimiser step computes these
            self._leave_out_old_logps = False
            return input_ids.new_zeros((len(input_ids), logits_to_keep), dtype=torch.float32), None, None
        with self.phase_times.measure("loss" if torch.is_grad_enabled() else "old", counts=self.model.training):
            scores: Any = None
            if self.scorer is not None and not compute_aux_loss and all(value is None for value in images.values()):
                scores = self.scorer.score_in_batches(
                    model,
                    input_ids,
                    attention_mask,
                    logits_to_keep,
                    batch_size or len(input_ids),
                    entropy=compute_entropy,
                )
            if scores is None:
                scores = super()._get_per_token_logps_and_entropies(
                    model,
                    input_ids,
                    attention_mask,
                    logits_to_keep,
                    batch_size=batch_size,
                    compute_entropy=compute_entropy,
                    compute_aux_loss=compute_aux_loss,
                    **images,
                )
            else:
                scores = *scores, None
        if self._micro_batch is not None:
            self._complete(self._micro_batch, scores[0].detach())
        return scores

    def _complete(self, micro_batch: Batch, logps: torch.Tensor) -> None:
        """Add what TRL's loss reads beside the log-probs of its forward pass: old log-probs and importance ratio."""
        self._micro_batch, self._last_logps = None, logps
        trainer, sampler = (micro_batch.get(f"{name}_per_token_logps") for name in ("old", "sampling"))
        micro_batch["old_per_token_logps"] = self.anchor.old_logps(logps, trainer, sampler)
        if self.anchor.mode is not None and sampler is not None:
            old, mask = micro_batch["old_per_token_logps"], policy_mask(micro_batch)
            micro_batch["importance_sampling_ratio"], _ = self.anchor.importance_ratio(old, sampler, mask)

    def score(self, model: Any, one: Pass, *, entropy: bool) -> tuple[torch.Tensor, Any, Any]:
        """Log-probs and entropies of a pass's completions, (B, T), and the load-balancing loss of experts or None."""
        ids = torch.cat([one.prompt_ids, one.completion_ids], dim=1)
        left_to_trl = one.images or self.aux_loss_enabled or any(row.prompt == 0 for row in one.rows)
        if self.scorer is not None and not left_to_trl:
            phase = self.phase_times.measure("loss" if torch.is_grad_enabled() else "old", counts=self.model.training)
            # transformers would look for packed rows to build a mask, and wait for the device; packed rows need none
            with phase, _replaced(masking_utils, find_packed_sequence_indices=lambda position_ids: None):
                return *self.scorer.score(model, ids, one.prompt_ids.size(1), one.rows, entropy=entropy), None
        return self._get_per_token_logps_and_entropies(
            model,
            ids,
            torch.cat([one.prompt_mask, one.completion_mask], dim=1),
            one.completion_ids.size(1),
            compute_entropy=entropy,
            compute_aux_loss=entropy and self.aux_loss_enabled,
            **one.images,
        )

    def _planned(self, plan: PassPlan, micro_batches: list[Batch]) -> list[list[Pass]]:
        """The passes that are run in place of each micro-batch of a generation."""
        shares = self.scorer is not None and self.scorer.shares_in(self.model)
        passes, rows_run = plan.passes([self.as_pass(b) for b in micro_batches], shares_prompts=shares)
        if rows_run is not None:
            self._log("gbpo/rows_run", rows_run)
        return passes

    @torch.no_grad()
    def _add_old_logps(self, slot: int) -> None:
        """Compute the old log-probs of a new generation, except for the optimiser step that begins at `slot`.

        The forward passes of that step are run with the same weights, so they give its old log-probs.
        """
        if self.anchor.is_sampler or not (self._uses_old_logps and self._finds_old_logps):
            return
        first = range(slot, slot + self.args.gradient_accumulation_steps)
        with disable_gradient_checkpointing(self.model, self.args.gradient_checkpointing_kwargs):
            for i, inputs in enumerate(self._buffered_inputs):
                if i in first:
                    continue
                if self.pass_plan is None:
                    inputs["old_per_token_logps"] = self._policy_logps(inputs)
                else:
                    self._buffered_inputs[i] = [
                        replace(one, old_logps=self.score(self.model, one, entropy=False)[0]) for one in inputs
                    ]

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The loss of one micro-batch: TRL's loss or, with a `pass_plan`, the sum of the losses of its passes.

        This method runs the backward of every pass except the last, whose backward TRL runs.
        """
        if self.pass_plan is None:
            inputs = self._micro_batch = self._without_old_rows(inputs)
            weighs = self.anchor.mode is not None and "sampling_per_token_logps" in inputs
            with self._with(use_vllm=self.use_vllm or weighs):  # TRL reads importance ratios only with vLLM
                loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            logps, self._last_logps = self._last_logps, None
            if self.model.training:
                one = self.as_pass(inputs)
                self._ran += ((one, logps, self.log_ratio(logps, one).exp()),)
            return loss
        if not inputs:  # the passes of another micro-batch of this optimiser step hold these rows
            return torch.zeros((), device=self.accelerator.device, requires_grad=True)
        others = torch.zeros((), device=self.accelerator.device)
        options = {"scale_wrt_gas": False} if self.accelerator.distributed_type == DistributedType.DEEPSPEED else {}
        for one in inputs[:-1]:
            with self._accumulating(model):
                loss = self._loss_of_pass(model, one)
                self.accelerator.backward(loss, **options)
            others += loss.detach()
        loss = self._loss_of_pass(model, inputs[-1]) + others
        if not self.model.training:
            self.finish_step()
        return loss

    def _without_old_rows(self, inputs: Batch) -> Batch:
        """A micro-batch of TRL without the completions that are older than `max_staleness`."""
        fresh = self._is_fresh(inputs.get("versions"))
        if fresh is None:
            return inputs
        mask = inputs.get("tool_mask", torch.ones_like(inputs["completion_mask"]))
        return inputs | {"tool_mask": mask * fresh.unsqueeze(1)}

    def _is_fresh(self, versions: torch.Tensor | None) -> torch.Tensor | None:
        """Whether each completion is not older than `max_staleness`, (B,). None if there is no limit."""
        limit = getattr(self.args, "max_staleness", None)
        if limit is None or versions is None or not self.model.training:
            return None
        return versions >= self.state.global_step - limit

    def _loss_of_pass(self, model: Any, one: Pass) -> torch.Tensor:
        fresh = self._is_fresh(one.versions)
        if fresh is not None:
            one = replace(one, policy_mask=one.policy_mask * fresh.unsqueeze(1))
        logps, entropies, aux_loss = self.score(model, one, entropy=True)
        loss, ratio = self.pass_loss(one, logps, entropies, aux_loss)
        if self.model.training:
            self._ran += ((one, logps.detach(), ratio),)
        return loss

    def log_ratio(self, logps: torch.Tensor, one: Pass) -> torch.Tensor:
        """log ρ of each token, (B, T), or the mean of log ρ over each sequence, (B, 1)."""
        return self.at_level(logps - self.anchor.old_logps(logps, one.old_logps, one.sampling_logps), one)

    def at_level(self, values: torch.Tensor, one: Pass) -> torch.Tensor:
        """Values of the tokens, (B, T), as they are, or their mean over each sequence, (B, 1)."""
        if self.importance_sampling_level == "token":
            return values
        mask = one.policy_mask
        return (values * mask).sum(-1, keepdim=True) / mask.sum(-1, keepdim=True).clamp(min=1.0)

    @contextmanager
    def _accumulating(self, model: Any) -> Iterator[None]:
        """Within this context, a backward does not reduce gradients across ranks, unless `sync_each_batch` is set.

        Every micro-batch except the last of an optimiser step does the same.
        """
        if not self.accelerator.sync_gradients:
            yield
            return
        deepspeed = self.accelerator.distributed_type == DistributedType.DEEPSPEED
        if deepspeed or self.accelerator.gradient_state.plugin_kwargs.get("sync_each_batch", False):
            context: Any = nullcontext()
        elif self.is_distributed_loading_by_transformers:
            context = self._defer_fsdp_gradient_reduction()
        else:
            context = self.accelerator.no_sync(model)
        self.accelerator.gradient_state._set_sync_gradients(False)
        try:
            with context:
                yield
        finally:
            self.accelerator.gradient_state._set_sync_gradients(True)

    def training_step(self, model, inputs, num_items_in_batch):
        if self._not_restored:  # the resumed epoch had no batch left, so transformers has not loaded the random states
            self._load_rng_state(self._not_restored)
        already_ran = len(self._ran)
        with self.phase_times.measure("loss"):
            loss = super().training_step(model, inputs, num_items_in_batch)
            if self.pass_plan is not None:
                slot = (self._step - 1) % self.args.steps_per_generation
                self._buffered_inputs[slot] = [
                    one if one.old_logps is not None else replace(one, old_logps=logps)
                    for one, logps, _ in self._ran[already_ran:]
                ]
            if self.accelerator.sync_gradients:
                self._log_ratios()
                self._record_ratios()
                self._log_sampler_gap()
                self._log_staleness()
                if self.scorer is not None:
                    self._log("gbpo/pass_shapes", float(len(self.scorer.shapes)))
                self.finish_step()
        return loss

    def _log_sampler_gap(self) -> None:
        """In the first optimiser step on a generation, log how far vLLM's policy is from the trainer's."""
        last = (self._step - 1) % self._generate_every
        if last >= self.args.gradient_accumulation_steps:
            return
        scores = [
            (self._logps_at_generation(one, logps), one.sampling_logps, one.policy_mask)
            for one, logps, _ in self._ran
            if one.sampling_logps is not None
        ]
        found: dict[str, float] = {}
        if self.use_vllm or self.ahead is not None:
            found |= sampler_gap_metrics(scores, self.anchor, self.accelerator)
        if self.ahead is not None:
            found |= first_use_metrics(scores, self.accelerator)
        for name, value in found.items():
            self._log(name, value)

    def _log_staleness(self) -> None:
        if self.ahead is None:
            return
        ran = [
            (one.versions, one.policy_mask.any(1))
            for one, _, _ in self._ran
            if one.versions is not None and not one.idle
        ]
        step, limit = self.state.global_step, self.args.max_staleness
        for name, value in staleness_metrics(ran, step, limit, self.accelerator).items():
            self._log(name, value)

    def _logps_at_generation(self, one: Pass, logps: torch.Tensor) -> torch.Tensor:
        """The trainer's log-probs at the time of the generation. `logps` are those of the first optimiser step."""
        return logps if one.old_logps is None or self.anchor.is_sampler else one.old_logps

    @torch.no_grad()
    def _log_ratios(self) -> None:
        by_token = self.importance_sampling_level == "token"
        ratios = [
            ratio[one.policy_mask.bool()] if by_token else ratio.squeeze(1)[one.policy_mask.any(1)]
            for one, _, ratio in self._ran
        ]
        for name, value in ratio_metrics(ratios, self.epsilon_low, self.epsilon_high, self.accelerator).items():
            self._log(name, value)

    @torch.no_grad()
    def _record_ratios(self) -> None:
        if self.rollout_log is None:
            return
        scores = []
        for one, logps, ratio in self._ran:
            if one.numbers is not None and not one.idle:
                sampler = one.sampling_logps
                old = self.anchor.old_logps(logps, one.old_logps, sampler) if sampler is None else sampler
                scores.append(Scores(one.numbers, old, ratio, one.policy_mask))
        self.rollout_log.updated((self._step - 1) % self.args.steps_per_generation, scores)
        self.rollout_log.finish(self._step // self._generate_every, self.state.global_step + 1)

    def score_again(
        self, inputs: list[dict[str, Any]], completions: list[Any], ids: list[list[int]], own: list[list[int]] | None
    ) -> None:
        """Compute rewards and advantages of stored completions as in training. `rollout_log` gets the results.

        The model is not run.

        Args:
            inputs: The rows of the data set, one for each completion.
            completions: The completions, as text or messages.
            ids: Token ids of each completion.
            own: Whether the policy sampled each token. None if it sampled all of them.
        """
        assert self.rollout_log is not None
        sampled: tuple[Any, ...] = ([[0]] * len(ids), ids, own, completions, None, {}, None, [])
        with self._with(_generate=lambda prompts: sampled):
            self._generate_and_score_completions(inputs)
        self.rollout_log.finish(1, self.state.global_step)

    def _get_grad_norm(self, model, grad_norm=None):
        norm = super()._get_grad_norm(model, grad_norm)
        skips = False
        if self.accelerator.scaler is None:  # with fp16, the gradient scaler skips non-finite steps itself
            ran = [(one, logps) for one, logps, _ in self._ran]
            skips = self.finite_steps.skips(norm, ran, self.state.global_step + 1)
        self._log("skipped_steps", float(skips))
        if skips and self.accelerator.distributed_type != DistributedType.DEEPSPEED:  # DeepSpeed has skipped it already
            self.optimizer.zero_grad()  # sets gradients to None, so the optimiser changes no weight and no moment
        self._ran = ()
        return norm

    def _log(self, name: str, value: float) -> None:
        self._metrics["train" if self.model.training else "eval"][name].append(value)

    # --- checkpoints

    def _save_checkpoint(self, model, trial):
        final = Path(self._get_output_dir(trial))
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        try:
            with written_whole(final, name, self.state, self.accelerator, self.args.should_save) as self._unfinished:
                super()._save_checkpoint(model, trial)
                self._finish_current_push()  # an upload reads the files under this name
        finally:
            self._unfinished = None
        if self.args.should_save:
            rotate_checkpoints(
                output_dir=str(final),
                save_total_limit=self.args.save_total_limit,
                best_model_checkpoint=self.state.best_model_checkpoint,
                use_mtime=True,
            )

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        if not self._loads_by_name or not load_renamed_weights(self.model, Path(resume_from_checkpoint)):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self):
        if not self._loads_by_name or not load_renamed_weights(self.model, Path(self.state.best_model_checkpoint)):
            super()._load_best_model()

    def _issue_warnings_after_load(self, load_result):
        tied = getattr(self.model, "all_tied_weights_keys", {})  # a checkpoint holds only one of two tied weights
        missing = [name for name in load_result.missing_keys if tied.get(name, name) in load_result.missing_keys]
        super()._issue_warnings_after_load(load_result._replace(missing_keys=missing))

    @property
    def _loads_by_name(self) -> bool:
        """Whether transformers loads a checkpoint as a state dict of the whole model, without adapters."""
        sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled or self.is_distributed_loading_by_transformers
        return isinstance(self.model, PreTrainedModel) and not sharded

    def _get_output_dir(self, trial):
        return super()._get_output_dir(trial) if self._unfinished is None else str(self._unfinished)

    def _save_rng_state(self, output_dir):
        super()._save_rng_state(output_dir)
        generates = self._step % self._generate_every == 0
        self._settle()
        state = {
            "step": self._step,
            "ahead": [] if self.ahead is None else self.ahead.line.state(),
            "curriculum": None if self.curriculum is None else self.curriculum.state(),
            "completions": None if generates else self._buffered_inputs,
            "metrics": dict(self._metrics["train"]),
            "logs": plain_logs(self._logs),
            "loss_since_log": self._tr_loss,
            "total_loss": self._total_loss_scalar,
            "last_logged_step": self._globalstep_last_logged,
            "shapes": [] if self.scorer is None else list(self.scorer.shapes),
            "rollouts": None if self.rollout_log is None else self.rollout_log.state(),
        }
        save_rollout_state(Path(output_dir), self.args.process_index, state)

    def _load_rng_state(self, checkpoint):
        super()._load_rng_state(checkpoint)  # transformers restores this last, before the first step
        self._not_restored = None
        state = load_rollout_state(Path(checkpoint), self.args.process_index, self.args.device)
        if state is None:
            return
        self._step, completions = state["step"], state["completions"]
        if self.pass_plan is not None and not all(isinstance(one, Pass) for some in completions or () for one in some):
            completions = None  # an earlier version saved dicts; these completions are generated again
        self._buffered_inputs = completions
        if self.ahead is not None:
            self.ahead.line.load(state.get("ahead", ()))  # an earlier version did not save it
        if self.curriculum is not None and state.get("curriculum") is not None:  # absent if the run had no curriculum
            self.curriculum.load(state["curriculum"])
        self._metrics["train"] = defaultdict(list, state["metrics"])
        _extend(self._logs, state["logs"])
        if self.rollout_log is not None and state.get("rollouts") is not None:  # an earlier version did not save them
            self.rollout_log.load(state["rollouts"])
        self._tr_loss, self._total_loss_scalar = state["loss_since_log"], state["total_loss"]
        self._globalstep_last_logged = state["last_logged_step"]
        if self.scorer is not None:
            self.scorer.shapes.update(state.get("shapes", ()))  # an earlier version did not save them

    def _get_train_sampler(self, dataset=None):
        self._train_sampler = super()._get_train_sampler(dataset)
        return self._train_sampler

    @property
    def rows_of_rank(self) -> slice:
        """The rows of this rank in a generation of all ranks."""
        rows = self.args.generation_batch_size // self.accelerator.num_processes
        return slice(self.accelerator.process_index * rows, (self.accelerator.process_index + 1) * rows)

    def prompts_to_come(self) -> PromptOrder:
        """The prompts of each generation of this rank, in the order of the data loader."""
        own_sampler = super()._get_train_sampler()  # the data loader's is an iterator with a random state
        batch = self.args.generation_batch_size
        return PromptOrder(self.train_dataset, own_sampler, batch, self._generate_every, self.rows_of_rank)

    def _init_training_state(
        self, max_steps, num_update_steps_per_epoch, num_train_epochs, resume_from_checkpoint, trial
    ):
        epochs, steps = super()._init_training_state(
            max_steps, num_update_steps_per_epoch, num_train_epochs, resume_from_checkpoint, trial
        )
        if self.state.global_step >= max_steps:  # transformers would take one more step, and look at max_steps after it
            return num_train_epochs, 0
        self._not_restored = resume_from_checkpoint
        if resume_from_checkpoint and not self._train_sampler and not self.args.ignore_data_skip:
            # transformers does not know the length of an iterable data set, and counts it as one endless epoch
            epochs, steps_in_epoch = int(self.state.epoch), self.state.max_steps * self.args.gradient_accumulation_steps
            steps = round((self.state.epoch - epochs) * steps_in_epoch)
        for _ in range(epochs):  # draw the orders of the past epochs, so that the sampler's random state is right
            next(iter(self._train_sampler), None)
        return epochs, steps


@contextmanager
def _replaced(module: Any, **members: Any) -> Iterator[None]:
    """Within this context, the given members of a module are replaced."""
    before = {name: vars(module)[name] for name in members if name in vars(module)}
    vars(module).update(members)
    try:
        yield
    finally:
        for name in members:
            del vars(module)[name]
        vars(module).update(before)


def _copied(log: Any, *, clear: bool = False) -> Any:
    """A copy of one of TRL's logs, which is a deque or a mapping from columns to deques; on request an empty one."""
    copied = log.copy()
    if clear:
        copied.clear()
    for name in copied if isinstance(log, defaultdict) else ():
        copied[name] = log[name].copy()
    return copied


def _extend(logs: Batch, more: Batch) -> None:
    """Append the entries of one log of completions to another."""
    for name, values in more.items():
        columns = values.items() if isinstance(values, dict) else [(None, values)]
        for column, entries in columns:
            (logs[name] if column is None else logs[name][column]).extend(entries)
