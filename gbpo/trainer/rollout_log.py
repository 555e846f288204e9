"""`RolloutLog`: records what happened to each completion, so that people can read it during and after the run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from transformers import TrainerCallback

from .checkpoints import plain_logs
from .passes.batch import policy_mask

Record = dict[str, Any]

# Log-probs and ratios are kept for the first completions of a generation, until they have this many tokens.
MAX_TOKENS = 100_000


class Scores(NamedTuple):
    """What one pass of an optimiser step computed for its completions.

    Args:
        numbers: Numbers of the completions, (B,).
        logps: Log-probs under the policy that sampled, (B, T).
        ratio: Probability ratios ρ, (B, T), or (B, 1) at sequence level.
        mask: Tokens that the loss counts, (B, T).
    """

    numbers: torch.Tensor
    logps: torch.Tensor
    ratio: torch.Tensor
    mask: torch.Tensor


@dataclass
class _Draw:
    """Completions that were scored together. They are converted late: many small objects would slow training down.

    Args:
        first: Number of the first completion of all ranks.
        version: Optimiser steps that the weights had taken that sampled the completions.
        rows: The rows of the data set of this rank, as the rewards read them.
        ids: Token ids of the completions of this rank.
        own: Tokens that the policy sampled, (B, T).
        targets: Target ratios ρ*, (B,); None without targets.
        logs: TRL's log of the completions of all ranks; empty except on the main process.
    """

    first: int
    version: int
    rows: Sequence[Mapping[str, Any]]
    ids: Sequence[Sequence[int]]
    own: torch.Tensor
    targets: torch.Tensor | None
    logs: Mapping[str, Any]

    def plain(self) -> dict[str, Any]:
        """The draw as plain data and tensors. A draw that is made of it is equal for the record."""
        rows, ids = list(map(_storable, self.rows)), [list(map(int, some)) for some in self.ids]
        return dict(vars(self)) | {"rows": rows, "ids": ids, "logs": self.logs and plain_logs(self.logs)}

    def of_rank(self, rank: int) -> dict[int, Record]:
        """What this rank knows of its completions, by number."""
        own = self.own.tolist()
        targets = None if self.targets is None else self.targets.tolist()
        found = {}
        for i, (row, tokens) in enumerate(zip(self.rows, self.ids, strict=True)):
            stored = {"row": _storable(row), "ids": list(map(int, tokens)), "sampled_after": self.version}
            if targets is not None:
                stored["target_ratio"] = targets[i]
            if not all(own[i][: len(tokens)]):
                stored["own"] = own[i][: len(tokens)]
            found[self.first + rank * len(self.ids) + i] = stored
        return found

    def texts(self, weights: Mapping[str, float]) -> dict[int, Record]:
        """What TRL logged of the completions of all ranks, by number."""
        found, logs = {}, plain_logs(self.logs)
        for i, (prompt, completion) in enumerate(zip(logs["prompt"], logs["completion"], strict=True)):
            rewards = {name: _number(values[i]) for name, values in logs["rewards"].items()}
            given = [weights[name] * value for name, value in rewards.items() if value is not None]
            found[self.first + i] = {
                "prompt": prompt,
                "completion": completion,
                "rewards": rewards,
                "reward": sum(given) if given else None,
                "advantage": logs["advantages"][i],
                "statuses": {name: values[i] for name, values in logs["extra"].items()},
            }
        return found


@dataclass
class _Pending:
    """A generation that is still trained on, with the numbers of the completions of this rank that are kept."""

    generation: int
    first_step: int
    draws: list[_Draw] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)


class RolloutLog(TrainerCallback):
    """Records each completion with its rewards, advantage and target, and with the ratios of its last update.

    Each completion has a number, which goes with its row through shuffling, resampling and the arrangement of passes.
    When a generation is trained for the last time, the main process gathers its parts and passes them to `write`.

    Args:
        accelerator: The accelerator of the trainer.
        weights: The weight of each reward, by its name.
        num_generations: Completions of a group.
        bounds: The lowest and the highest ratio within the bounds.
        decode: Gives the text of token ids.
        write: Called on the main process with the record of a generation.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        weights: Mapping[str, float],
        num_generations: int,
        bounds: tuple[float, float],
        decode: Callable[[list[int]], str],
        write: Callable[[Record], None],
    ):
        self._accelerator, self._weights = accelerator, dict(weights)
        self._group, self._bounds, self._decode, self._write = num_generations, bounds, decode, write
        self._pending: list[_Pending] = []
        self._graded: tuple[Sequence[Mapping[str, Any]], Sequence[Sequence[int]]] = ((), ())
        self._updates: dict[int, list[Scores]] = {}  # by the slot of the optimiser step in the generation
        self._vocabulary: dict[int, str] = {}
        self._next = 0

    # --- one generation

    def begin(self, generation: int, step: int) -> None:
        """Begin a generation whose first optimiser step has this number, counted from 1."""
        self._pending.append(_Pending(generation, step))

    def graded(self, inputs: Sequence[Mapping[str, Any]], ids: Sequence[Sequence[int]]) -> None:
        """Note what the rewards of this rank read: the rows of the data set and the token ids of the completions."""
        self._graded = inputs, ids

    def add_draw(self, logs: Mapping[str, Any], batch: Mapping[str, Any], version: int) -> torch.Tensor:
        """Add completions that have been scored.

        Args:
            logs: TRL's log of the completions of all ranks.
            batch: The completions of this rank.
            version: Optimiser steps that the weights had taken that sampled the completions.

        Returns:
            The number of each completion of this rank, (B,).
        """
        (rows, ids), self._graded = self._graded, ((), ())
        draw = _Draw(
            first=self._next,
            version=version,
            rows=rows,
            ids=ids,
            own=policy_mask(batch),
            targets=batch.get("target_ratio"),
            logs=logs if self._accelerator.is_main_process else {},
        )
        self._pending[-1].draws.append(draw)
        self._next += len(ids) * self._accelerator.num_processes
        first = draw.first + self._accelerator.process_index * len(ids)
        return torch.arange(first, first + len(ids), device=batch["advantages"].device)

    def keep(self, numbers: torch.Tensor) -> None:
        """Note the completions of this rank that are trained on. Resampling replaces some that were drawn."""
        self._pending[-1].kept = numbers.tolist()

    def updated(self, slot: int, scores: list[Scores]) -> None:
        """Note the ratios of an optimiser step. They replace those of the same slot in an earlier iteration."""
        self._updates.pop(slot, None)
        self._updates[slot] = scores

    def finish(self, generations: int, step: int) -> None:
        """Write the generations that are not trained on again. All ranks call this together.

        Args:
            generations: Number of generations of the run that are finished.
            step: Optimiser steps that the run has taken.
        """
        finished = [one for one in self._pending if one.generation < generations]
        if not finished:
            return
        self._pending = [one for one in self._pending if one.generation >= generations]
        scores = self._scores({number for one in finished for number in one.kept})
        for one in finished:
            rows: dict[int, Record] = {}
            for draw in one.draws:
                rows |= draw.of_rank(self._accelerator.process_index)
            parts = gather_object([(rows, one.kept, scores)])
            if self._accelerator.is_main_process:
                self._write(self._record(one, parts, step))
        if not self._pending:
            self._updates, self._next = {}, 0

    def on_train_end(self, args, state, control, **kwargs):
        if self._pending:
            self.finish(self._pending[-1].generation + 1, state.global_step)

    # --- checkpoints

    def state(self) -> dict[str, Any]:
        """The generations that are still trained on, as plain data and tensors."""
        return {
            "pending": [vars(one) | {"draws": [draw.plain() for draw in one.draws]} for one in self._pending],
            "updates": {slot: [tuple(some) for some in scores] for slot, scores in self._updates.items()},
            "next": self._next,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        self._pending = [
            _Pending(**one | {"draws": [_Draw(**draw) for draw in one["draws"]]}) for one in state["pending"]
        ]
        self._updates = {slot: [Scores(*some) for some in scores] for slot, scores in state["updates"].items()}
        self._next = state["next"]

    # --- the record

    def _scores(self, wanted: set[int]) -> dict[int, tuple[list[Any], list[Any]]]:
        """Log-probs and ratios of completions of this rank, by number, for the first `MAX_TOKENS` tokens."""
        found: dict[int, tuple[list[Any], list[Any]]] = {}
        for numbers, logps, ratio, mask in (some for scores in self._updates.values() for some in scores):
            if ratio.size(1) == mask.size(1):
                ratio = ratio.masked_fill(~mask.bool(), torch.nan)
            columns = (numbers.tolist(), mask.any(1).tolist(), _rounded(logps), _rounded(ratio))
            for number, counted, of_logps, of_ratio in zip(*columns, strict=True):
                if counted and number in wanted:
                    found[number] = of_logps, of_ratio
        return found

    def _record(self, one: _Pending, parts: Sequence[Any], step: int) -> Record:
        rows: dict[int, Record] = {}
        scores: dict[int, tuple[list[Any], list[Any]]] = {}
        kept: list[int] = []
        for of_rank, kept_by_rank, of_scores in parts:
            rows |= of_rank
            scores |= of_scores
            kept += kept_by_rank
        texts: dict[int, Record] = {}
        for draw in one.draws:
            texts |= draw.texts(self._weights)
        tokens, left, groups = 0, 0, []
        for first in range(0, len(kept), self._group):
            completions = []
            for number in kept[first : first + self._group]:
                values = texts[number] | rows[number]
                values["row"] = {"prompt": values.pop("prompt"), **values["row"]}
                values["round"] = sum(draw.first <= number for draw in one.draws) - 1
                values["trained"] = number in scores
                tokens += len(values["ids"])
                if tokens > MAX_TOKENS:
                    left += 1
                elif number in scores:
                    length = len(values["ids"])
                    values["logps"], values["ratios"] = (some[:length] for some in scores[number])
                completions.append(values)
            groups.append(_grouped(completions))
        unknown = {token for group in groups for some in group["completions"] for token in some["ids"]}
        for token in unknown - self._vocabulary.keys():
            self._vocabulary[token] = self._decode([token])
        drawn = len(texts) // self._group
        return {
            "generation": one.generation,
            "steps": [one.first_step, step],
            "bounds": list(self._bounds),
            "weights": self._weights,
            "drawn_groups": drawn,
            "replaced_groups": drawn - len(groups) if len(one.draws) > 1 else 0,
            "without_ratios": left,
            "vocabulary": {token: self._vocabulary[token] for token in sorted(unknown)},
            "groups": groups,
        }


def _storable(row: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a row that JSON can hold exactly. The prompt is stored as the rewards got it."""
    return {name: value for name, value in row.items() if name != "prompt" and _is_plain(value)}


def _is_plain(value: Any) -> bool:
    if value is None or type(value) in (str, int, float, bool):
        return True
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return isinstance(value, dict) and all(isinstance(key, str) and _is_plain(v) for key, v in value.items())


def _grouped(completions: list[Record]) -> Record:
    """A group, with the columns of its rows that are equal stored once."""
    first = completions[0]["row"]
    shared = {name: value for name, value in first.items() if all(c["row"].get(name) == value for c in completions)}
    for one in completions:
        own = {name: value for name, value in one.pop("row").items() if name not in shared}
        if own:
            one["row"] = own
    return {"row": shared, "completions": completions}


def _number(value: float) -> float | None:
    return None if value != value else value  # NaN stands for a reward that returned None


def _rounded(tensor: torch.Tensor) -> list[list[float | None]]:
    """The rows of a tensor with five decimals, and None in place of NaN."""
    tensor = tensor.detach().cpu().double().mul(1e5).round().div(1e5)
    rows = tensor.tolist()
    return [[None if value != value else value for value in row] for row in rows] if tensor.isnan().any() else rows
