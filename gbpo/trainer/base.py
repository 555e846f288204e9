"""`BaseTrainer`: the parts that GBPO and the GRPO baseline share."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

from accelerate.logging import get_logger
from accelerate.utils import DistributedType, broadcast_object_list
from datasets import IterableDataset
from peft import PeftModel
from trl.generation.vllm_client import VLLMClient
from trl.trainer.utils import RepeatSampler

from ..shared.write_whole import write_whole
from .bridge import BridgeTrainer
from .config import Band, BaseConfig
from .guards.finite_steps import FiniteSteps
from .guards.phase_times import PhaseTimes
from .guards.vllm_weights import WeightCheck, engine_dtype
from .passes.anchor import Anchor
from .passes.run import Scorer
from .passes.speedups import decide
from .rollout_log import Record, RolloutLog
from .sampling.adapter_sync import AdapterSync, why_merged
from .sampling.ahead import Ahead
from .sampling.background import BackgroundSampler
from .sampling.curriculum import Curriculum
from .sampling.delay_line import DelayLine
from .sampling.extra_votes import ExtraVotes, vote_rounds
from .sampling.merged_weights import has_mergeable_adapter
from .sampling.resampling import Resampling
from .sampling.seeds import SamplingSeeds
from .sampling.unbiased import biased_sampling
from .sampling.vllm_client import LORA_FLAGS, SAMPLING_OPTIONS, SeededClient, readable_errors, server_url

logger = get_logger(__name__)

_WHOLE_MODELS = {DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU}


class BaseTrainer(BridgeTrainer):
    """TRL's GRPOTrainer with TRL's loss and with the parts of this project. `BridgeTrainer` lists the parts in order.

    The configuration is a `trl.GRPOConfig`, or a `BaseConfig` to set the options of the parts.
    """

    bounded_loss = False
    model_card: Callable[[], str] | None = None  # gives the text of the model card instead of TRL's template

    def __init__(self, model, reward_funcs=None, *args, **kwargs):
        if isinstance(model, str) and model.startswith("builtin:"):
            raise ValueError(
                f"model={model!r} is a name for recipes, and TRL would look for it on the Hub. Write "
                f"model=gbpo.local_model({model!r})."
            )
        for reward in reward_funcs if isinstance(reward_funcs, list) else [reward_funcs]:
            if isinstance(reward, str) and "/" not in reward and not Path(reward).is_dir():
                raise ValueError(
                    f"reward_funcs={reward!r} has no owner, so it is the name of a reward in recipes, but TRL would "
                    f"look for a reward model of this name on the Hub. Write gbpo.get_reward({reward!r}) or, for a "
                    f"model of the Hub, its name with the owner, which its page shows: OWNER/{reward}."
                )
        super().__init__(model, reward_funcs, *args, **kwargs)
        rank = self.accelerator.process_index
        self.phase_times = PhaseTimes(self._log)
        self.add_callback(self.phase_times)
        self.anchor = Anchor.of(self.args)
        self.finite_steps = FiniteSteps(self.processing_class.decode, rank)
        self.extra_votes = ExtraVotes(vote_rounds(self.reward_funcs, self.num_generations))
        if self.extra_votes.rounds and self.tools:
            raise ValueError(
                f"A reward asks for {self.extra_votes.rounds} more round(s) of votes, but tools and environments keep "
                "their state from the first round, which would change the later votes. Remove the votes or the tools."
            )
        if isinstance(self.args, BaseConfig) and self.args.difficulty:
            self.curriculum = self._curriculum(Band.read(self.args.difficulty))
        if isinstance(self.args, BaseConfig) and self.args.resample_zero_signal_groups:
            self.resampling = Resampling(
                self.train_dataset,
                self.accelerator,
                self.num_generations,
                self._tokenizer.pad_token_id,
                self.args.seed,
                choose=None if self.curriculum is None else self.curriculum.further,
            )
        ahead = self.args.generate_ahead if isinstance(self.args, BaseConfig) else 0
        rounds = isinstance(self.args, BaseConfig) and self.args.sampling_dtype is not None
        if self.use_vllm or ahead or rounds:
            seeds = self.sampling_seeds = SamplingSeeds(self.args.seed, self._engine_number)
        if self._has_server:
            self.adapter_sync = self._adapter_sync()
        if self.use_vllm:
            dtype = engine_dtype(self.model.dtype, self.accelerator.mixed_precision)
            biased = biased_sampling(self.args) is not None
            merges = has_mergeable_adapter(self.model) and self.adapter_sync is None
            self.weight_check = WeightCheck(self.accelerator, dtype, biased, self._weight_sync_fix(dtype), merges)
        if ahead or rounds:  # the log-probs of the sampler are kept with its completions
            self._check_ahead_is_possible()
            background = self._background_sampler() if self._has_server else None
            self.ahead = Ahead(DelayLine(ahead), self.curriculum or self.prompts_to_come(), seeds, background)
        self.speedups = decide(
            self.args,
            self.model,
            bounded_loss=self.bounded_loss,
            whole_model=self.accelerator.distributed_type in _WHOLE_MODELS
            and not self.is_distributed_loading_by_transformers,
            has_images=self._is_vlm and self._has_image_columns,
        )
        if "trim_padding" in self.speedups:
            self.scorer = Scorer.of(
                self.accelerator,
                self.model.config,
                pack="pack_rows" in self.speedups,
                share="share_prompts" in self.speedups,
                multiple=self.pad_to_multiple_of,
                few_shapes=self._needs_few_shapes,
            )
        logger.info(self.speedups.line())

    def create_model_card(self, *args, **kwargs) -> None:
        """Write the model card into the output folder: the text of `model_card` if it is set, else TRL's card."""
        if self.model_card is None:
            super().create_model_card(*args, **kwargs)
        elif self.is_world_process_zero():
            write_whole(Path(self.args.output_dir) / "README.md", self.model_card())

    def record_rollouts(self, write: Callable[[Record], None]) -> None:
        """Record every completion. The main process passes the record of each generation to `write`."""
        self.rollout_log = RolloutLog(
            self.accelerator,
            weights=dict(zip(self.reward_func_names, self.reward_weights.tolist(), strict=True)),
            num_generations=self.num_generations,
            bounds=(1 - self.epsilon_low, 1 + self.epsilon_high),
            decode=self._tokenizer.decode,
            write=write,
        )
        self.add_callback(self.rollout_log)

    @property
    def _has_image_columns(self) -> bool:
        return bool({"image", "images"} & set(getattr(self.train_dataset, "column_names", None) or ()))

    @property
    def _has_server(self) -> bool:
        return self.use_vllm and self.args.vllm_mode == "server"

    @property
    def _engine_number(self) -> int:
        """Number of the engine that samples for this rank. A group of tensor-parallel processes is one engine."""
        if self._has_server:
            return 0
        return self.accelerator.process_index // (self.args.vllm_tensor_parallel_size if self.use_vllm else 1)

    def _curriculum(self, band: Band) -> Curriculum:
        if isinstance(self.train_dataset, IterableDataset):
            raise ValueError(
                f"difficulty={self.args.difficulty} chooses prompts by their index, which an IterableDataset does not "
                "have. Use a datasets.Dataset, or remove difficulty."
            )
        count = self.args.generation_batch_size // self.num_generations
        one_pass = RepeatSampler(
            self.train_dataset, 1, batch_size=count, shuffle=self.shuffle_dataset, seed=self.args.seed
        )
        return Curriculum(
            self.train_dataset,
            one_pass,
            band,
            count=count,
            group_size=self.num_generations,
            mine=self.rows_of_rank,
            names=self.reward_func_names,
            seed=self.args.seed,
        )

    def _check_ahead_is_possible(self) -> None:
        """Raise `ValueError` if the trainer has a part that cannot be sampled ahead."""
        reasons = {
            "tools and environments answer in several turns, and the later turns would be sampled with newer weights": (
                self.tools or self.environment_factories is not None
            ),
            "a rollout_func samples by itself": self.rollout_func is not None,
            "images are not sampled ahead": self._has_image_columns,
            "prompts cannot be read ahead from a data set without a length": isinstance(
                self.train_dataset, IterableDataset
            ),
        }
        given, fix = f"generate_ahead={self.args.generate_ahead}", "Write generate_ahead: 0"
        if not self.args.generate_ahead:
            given, fix = f"sampling_dtype={self.args.sampling_dtype!r}", "Remove sampling_dtype"
        for reason, applies in reasons.items():
            if applies:
                raise ValueError(f"{given} cannot be used here: {reason}. {fix}.")

    def _adapter_sync(self) -> AdapterSync | None:
        """The part that sends only the adapter, if there is one and the server takes it."""
        if not isinstance(self.model, PeftModel):
            return None
        client = getattr(self.vllm_generation, "vllm_client", None)  # only the main process has it
        config = self.model.peft_config[self.model.active_adapter]
        takes = [client is not None and client.takes_adapters()]
        broadcast_object_list(takes)
        reason = why_merged(config)
        if reason is None and not takes[0]:
            reason = f"the server was not started with {LORA_FLAGS.format(rank=config.r)}"
        if reason is not None:
            logger.info(f"The server gets the merged weights of the whole model at every sync, because {reason}.")
            return None
        folder = Path(self.args.output_dir) / "_adapter"  # uploads to the Hub leave out names with an underscore
        return AdapterSync(self.model, folder, client, self.vllm_generation._dist.gather_params)

    def _background_sampler(self) -> BackgroundSampler:
        url, timeout = server_url(self.args), self.args.vllm_server_timeout
        with readable_errors():
            client = SeededClient(VLLMClient(base_url=url, connection_timeout=timeout))
        engine = self.vllm_generation
        options = {name: getattr(engine, name) for name in SAMPLING_OPTIONS}
        options |= {"max_tokens": engine.max_completion_length, "min_p": engine.min_p or 0.0}
        tokenizer = deepcopy(self.processing_class)
        return BackgroundSampler(client, options, self.num_generations, self.accelerator.process_index, tokenizer)

    @property
    def _needs_few_shapes(self) -> bool:
        """Whether new shapes are expensive. On a CPU without a compiler they are not, and rounding adds padding."""
        return self.accelerator.device.type != "cpu" or bool(self.args.torch_compile)

    def _weight_sync_fix(self, dtype) -> str:
        if self.args.vllm_mode == "colocate":
            return "The weight sync does not reach the engine. Use a vLLM version that TRL supports, or use_vllm: false"
        quantised = getattr(self.model, "is_quantized", False)
        base = "weights that are not this model's dequantised ones" if quantised else "another model"
        return (
            f"The server at {server_url(self.args)} serves {base} or another dtype (--dtype "
            f"{str(dtype).removeprefix('torch.')}), lacks --logprobs-mode processed_logprobs, was restarted since, or "
            "did not receive the weights. Restart it, then resume this run from its last checkpoint"
        )
