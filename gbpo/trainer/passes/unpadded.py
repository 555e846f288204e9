"""`TrimmedGRPOTrainer`: TRL's GRPOTrainer that runs the model on the tokens of the rows and not on their padding."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from trl.trainer import utils

from . import capabilities as architecture
from . import shared_prompts as sharing
from .shared_prompts import SharingGRPOTrainer


class TrimmedGRPOTrainer(SharingGRPOTrainer):
    """TRL's GRPOTrainer whose log-probs cost what the tokens cost: each forward pass is as wide as its longest row.

    TRL pads all rows to the widest prompt and the widest completion of the generation batch. Here every row begins at
    its first token, so that neither the padding left of a prompt nor that right of a completion is run, in the passes
    for the old and the reference log-probs, whose rows are taken in the order of their lengths, as in those of the
    loss. What then lies right of a row needs no mask, and the head runs the scored tokens alone. Under FlashAttention
    the rows of a pass lie behind each other without any padding (`pack_rows`). Otherwise a prompt is run once for all
    of its completions in a pass, which attend to its keys and values (`share_prompts`).

    The results are TRL's up to rounding. Left to TRL: images, the load-balancing loss of experts, prompt tuning, and
    rotary embeddings that depend on the width of the batch. Where positions are absolute, or unknown to be relative,
    the padding left of the prompts stays. Prompts are not shared with dropout, which would be the same for all of their
    completions, with gradient checkpointing, which keeps no keys and values, in layers that are no attention, and in
    models that are sharded.
    """

    trim_padding = True
    pack_rows = True

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        config = self.model.config
        self._relative_positions = architecture.has_rotary_embeddings(config)
        self._can_trim = architecture.trims(self.model)
        self._is_causal = architecture.is_causal(config)
        self._can_pack = self._relative_positions and architecture.packs(config)

    @property
    def _trims(self) -> bool:
        return self.trim_padding and self._can_trim

    @property
    def _packs(self) -> bool:
        return self._trims and self.pack_rows and self._can_pack

    @property
    def _shares_in_passes(self) -> bool:
        possible = self._trims and self._relative_positions and not self._packs and not self.pad_to_multiple_of
        return possible and self._shares

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
            positions = sharing.positions(attended)
            labels = labels[attended].unsqueeze(0)  # (1, tokens)
            inputs = {"input_ids": input_ids[attended].unsqueeze(0), "position_ids": positions[attended].unsqueeze(0)}
        elif (shared := self._with_shared_prompts(model, input_ids, attended, labels, logits_to_keep)) is not None:
            inputs, labels = shared
        else:
            columns, inside = self._columns(attended)  # (B, W)
            labels = labels.gather(1, columns).masked_fill(~inside, -100)
            mask = attention_mask.gather(1, columns) * inside
            inputs = {"input_ids": input_ids.gather(1, columns)}
            if not self._needs_no_mask(mask):
                inputs["attention_mask"] = mask
        with self.accelerator.autocast(), self._head_on_scored_tokens():
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
        if not self._shares_in_passes:
            return None
        last = input_ids.size(1) - logits_to_keep - 1  # column of the prompts' last tokens
        begins = int(attended.any(0).int().argmax())
        if begins == last:  # no prompt has two tokens
            return None
        prompts, prompt_of = sharing.distinct(input_ids[:, begins:last], attended[:, begins:last])
        end = last + 1 + int(attended[:, last + 1 :].any(0).sum())
        shared = sharing.cost(len(prompts), prompts.size(1) + 1, len(input_ids), end - last - 1)
        if not sharing.is_cheaper(shared, alone=len(input_ids) * int(attended.sum(1).amax())):
            return None
        with self.accelerator.autocast():  # not through DDP, whose ranks need not share alike
            past = sharing.past(self.accelerator.unwrap_model(model), prompts, prompt_of)
        mask = attended[:, begins:end].long()
        inputs = {"input_ids": input_ids[:, last:end], "attention_mask": mask, "past_key_values": past}
        positions = sharing.positions(mask)[:, last - begins :]
        return inputs | {"position_ids": positions}, labels[:, last:end]

    def _needs_no_mask(self, mask: torch.Tensor) -> bool:
        """Whether all padding, (B, W), lies right of the tokens, which do not look there: attention's kernels are at
        their fastest where they are told nothing but that it is causal.
        """
        return self._is_causal and bool((mask.diff(dim=1) <= 0).all())

    @contextmanager
    def _head_on_scored_tokens(self) -> Iterator[None]:
        """Inside, TRL's fused head runs the tokens that have a label on a CPU too, as it does where Triton is, and not
        all of them; a compiler would compile every number of tokens anew.
        """
        use_triton = utils._use_triton
        if self.accelerator.device.type == "cpu" and not self.args.torch_compile:
            utils._use_triton = lambda device: True  # asked there for this alone
        try:
            yield
        finally:
            utils._use_triton = use_triton

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
