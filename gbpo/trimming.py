"""`TrimmedGRPOTrainer`: TRL's GRPOTrainer that runs the model on the tokens of the rows and not on their padding."""

from collections.abc import Iterator
from typing import Any

import torch
from accelerate.utils import DistributedType
from peft import PeftModel
from torch.nn.modules.dropout import _DropoutNd
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer
from trl import GRPOTrainer

# Rotary embeddings whose frequencies depend on the longest position of the batch: a narrower batch is another function.
_LENGTH_DEPENDENT = {"dynamic", "longrope"}
_RELATIVE_LAYERS = {"full_attention", "sliding_attention"}
_WHOLE_MODELS = {DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU}

# Prompts are run by themselves where that leaves out at least this share of the tokens: it takes a second forward pass.
_WORTH_SHARING = 1 / 8


class TrimmedGRPOTrainer(GRPOTrainer):
    """TRL's GRPOTrainer whose log-probs cost what the tokens cost: each forward pass is as wide as its longest row.

    TRL pads all rows to the widest prompt and the widest completion of the generation batch. Here every row begins at
    its first token, so that neither the padding left of a prompt nor that right of a completion is run, in the passes
    for the old and the reference log-probs, whose rows are taken in the order of their lengths, as in those of the
    loss. Under FlashAttention the rows of a pass lie behind each other without any padding (`pack_rows`). Otherwise a
    prompt is run once for all of its completions in a pass, which attend to its keys and values (`share_prompts`).

    The results are TRL's up to rounding. Left to TRL: images, the load-balancing loss of experts, prompt tuning, and
    rotary embeddings that depend on the width of the batch. Where positions are absolute, or unknown to be relative,
    the padding left of the prompts stays. Prompts are not shared with dropout, which would be the same for all of their
    completions, with gradient checkpointing, which keeps no keys and values, in layers that are no attention, and in
    models that are sharded.
    """

    trim_padding = True
    pack_rows = True
    share_prompts = True

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        kinds = rope_types(self.model.config.get_text_config())
        self._relative_positions = bool(kinds)
        prompt_tuning = isinstance(self.model, PeftModel) and self.model.active_peft_config.is_prompt_learning
        self._can_trim = not prompt_tuning and not kinds & _LENGTH_DEPENDENT
        self._can_pack = self._relative_positions and packs(self.model.config)
        self._noisy = has_dropout(self.model)
        whole = self.accelerator.distributed_type in _WHOLE_MODELS and not self.is_distributed_loading_by_transformers
        self._can_share = self._relative_positions and shares(self.model.config) and whole and not self._noisy

    @property
    def _trims(self) -> bool:
        return self.trim_padding and self._can_trim

    @property
    def _packs(self) -> bool:
        return self._trims and self.pack_rows and self._can_pack

    @property
    def _shares(self) -> bool:
        return self._trims and self.share_prompts and self._can_share and not self.pad_to_multiple_of

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
        left_to_trl = not self._trims or compute_aux_loss or any(value is not None for value in images.values())
        if left_to_trl or attention_mask[:, :-logits_to_keep].sum(1).amin() == 0:  # a row without a prompt
            return super()._get_per_token_logps_and_entropies(
                model,
                input_ids,
                attention_mask,
                logits_to_keep,
                batch_size=batch_size,
                compute_entropy=compute_entropy,
                compute_aux_loss=compute_aux_loss,
                **images,
            )
        options = (logits_to_keep, compute_entropy)
        if not batch_size or batch_size >= len(input_ids):
            return *self._score(model, input_ids, attention_mask, *options), None
        order = attention_mask.sum(1).argsort(descending=True)  # (B,), the longest first
        scores = [
            self._score(model, input_ids[rows], attention_mask[rows], *options) for rows in order.split(batch_size)
        ]
        logps, entropies = (
            None if parts[0] is None else torch.cat(parts)[order.argsort()] for parts in zip(*scores, strict=True)
        )  # (B, T)
        return logps, entropies, None

    def _score(
        self, model, input_ids: torch.Tensor, attention_mask: torch.Tensor, logits_to_keep: int, compute_entropy: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Log-probs and entropies of the completions of some rows in one forward pass, each (B, T); 0 in padding."""
        attended = attention_mask.bool()  # (B, P + T)
        completion = attended[:, -logits_to_keep:]  # (B, T)
        labels = input_ids.masked_fill(~attended, -100)
        labels[:, :-logits_to_keep] = -100
        if self._packs:
            positions = attended.cumsum(1) - 1
            labels = labels[attended].unsqueeze(0)  # (1, tokens)
            inputs = {"input_ids": input_ids[attended].unsqueeze(0), "position_ids": positions[attended].unsqueeze(0)}
        elif (shared := self._with_shared_prompts(model, input_ids, attended, labels, logits_to_keep)) is not None:
            inputs, labels = shared
        else:
            columns, inside = self._columns(attended)  # (B, W)
            labels = labels.gather(1, columns).masked_fill(~inside, -100)
            mask = attention_mask.gather(1, columns) * inside
            inputs = {"input_ids": input_ids.gather(1, columns), "attention_mask": mask}
        with self.accelerator.autocast():
            outputs = model(**inputs, labels=labels, fused_lm_head=True)
        scored = labels[:, 1:] != -100  # as many as completion has, in the same order

        def placed(values: torch.Tensor) -> torch.Tensor:
            return values.new_zeros(completion.shape).masked_scatter(completion, values[scored])

        return placed(outputs.log_probs), placed(outputs.entropy) if compute_entropy else None

    def _with_shared_prompts(
        self, model, input_ids: torch.Tensor, attended: torch.Tensor, labels: torch.Tensor, logits_to_keep: int
    ) -> tuple[dict[str, Any], torch.Tensor] | None:
        """Inputs and labels of all rows from the last token of their prompt on, (B, 1 + T), with the keys and values of
        what lies before it, which is run here, each prompt once; None where that is not possible, or saves too little.
        """
        last = input_ids.size(1) - logits_to_keep - 1  # column of the prompts' last tokens
        whole_model = self.accelerator.unwrap_model(model)
        if not self._shares or whole_model.is_activation_checkpointing:
            return None
        begins = int(attended.any(0).int().argmax())
        if begins == last:  # no prompt has two tokens
            return None
        before = input_ids[:, begins:last].masked_fill(~attended[:, begins:last], -1)  # (B, P)
        prompts, prompt_of = before.unique(dim=0, return_inverse=True)  # (U, P), (B,)
        end = last + 1 + int(attended[:, last + 1 :].any(0).sum())
        tokens, alone = prompts.numel() + input_ids[:, last:end].numel(), len(input_ids) * int(attended.sum(1).amax())
        if tokens > (1 - _WORTH_SHARING) * alone:
            return None
        cache = DynamicCache(config=self.model.config)
        inputs = {"input_ids": prompts.clamp(min=0), "attention_mask": (prompts >= 0).long()}
        with self.accelerator.autocast():  # not through DDP, whose ranks need not share alike
            whole_model(**inputs, past_key_values=cache, logits_to_keep=1)
        cache.batch_select_indices(prompt_of)
        mask = attended[:, begins:end].long()
        return {"input_ids": input_ids[:, last:end], "attention_mask": mask, "past_key_values": cache}, labels[
            :, last:end
        ]

    def _columns(self, attended: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """For each row the columns to run, beginning at its first token, and whether they lie inside it; (B, W)."""
        available = attended.size(1)
        places = torch.arange(available, device=attended.device)
        first = torch.where(attended, places, available).amin(1, keepdim=True)
        if not self._relative_positions:
            first = torch.zeros_like(first)
        width = int((torch.where(attended, places, -1).amax(1, keepdim=True) + 1 - first).amax())
        multiple = self.pad_to_multiple_of or 1
        columns = first + torch.arange(-(-width // multiple) * multiple, device=attended.device)
        return columns.clamp(max=available - 1), columns < available


def rope_types(config: Any) -> set[str]:
    """The kinds of rotary embeddings that a configuration names; none where it has no such embeddings.

    >>> from transformers import GPT2Config, Qwen2Config
    >>> rope_types(Qwen2Config()), rope_types(GPT2Config())
    ({'default'}, set())
    """
    return set(_rope_types(getattr(config, "rope_parameters", None)))


def _rope_types(parameters: Any) -> Iterator[str]:
    if isinstance(parameters, dict):
        if "rope_type" in parameters:
            yield parameters["rope_type"]
        for value in parameters.values():  # one for each type of layer
            yield from _rope_types(value)


def packs(config: Any) -> bool:
    """Whether rows may lie behind each other: FlashAttention tells them apart by their positions."""
    return "flash" in _attention(config) and _has_relative_layers(config)


def shares(config: Any) -> bool:
    """Whether rows may read keys and values of a prompt that was run apart, with gradients."""
    layers = DynamicCache(config=config).layers
    kept = all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)
    return bool(layers) and kept and _attention(config) in ("sdpa", "eager") and _has_relative_layers(config)


def _attention(config: Any) -> str:
    return str(config.get_text_config()._attn_implementation)


def _has_relative_layers(config: Any) -> bool:
    layers = getattr(config.get_text_config(), "layer_types", None) or _RELATIVE_LAYERS
    return set(layers) <= _RELATIVE_LAYERS


def has_dropout(model: Any) -> bool:
    """Whether two passes in training mode differ."""
    modules = any(isinstance(part, _DropoutNd) and part.p > 0 for part in model.modules())
    config = model.config.get_text_config().to_dict()  # attention's is no module
    return modules or any("drop" in name and isinstance(value, float) and value > 0 for name, value in config.items())
