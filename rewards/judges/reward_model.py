"""The reward `reward_model`: the score of a reward model or classifier that vLLM serves."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..shared.batch import Completion, completion_text
from ..shared.chat_marks import as_one_message
from .served import ServedReward, prompt_text

ENDPOINTS = ("score", "classify")


@dataclass(frozen=True, kw_only=True)
class RewardModel(ServedReward):
    """The score of a reward model that `vllm serve` serves.

    With `classify` the model reads the conversation in its own chat template, or the prompt with the completion if the
    prompt is plain text. The reward is the probability of a class. A reward model with one output has one class, whose
    value vLLM passes through a sigmoid unless the model's configuration says otherwise. With `score` the model reads
    the prompt and the completion as a pair, as a cross-encoder does. vLLM has this address only for models with one
    output.

    Marks that begin or end a message in a chat template, such as `<|im_end|>`, are broken up in the completion. A
    completion therefore cannot contain the praise of another user.

    Requests are limited, repeated and kept as those of the reward `judge` are.

    Args:
        endpoint: `"classify"` or `"score"`, the address of vLLM that is asked.
        class_index: With `classify`, the number of the class whose probability is the reward.
        base_url: The address of the server without `/v1`, for example `http://127.0.0.1:8000`.
        model, api_key_env, cache, concurrency, timeout, retries: See `served.ServedReward`.

    Returns:
        Per completion: the score (`ok`), or None (`infra`: there is no score).

    Raises:
        ValueError: An option cannot be used.
        RuntimeError: More than 10 % of a batch is `infra`. The error contains the first failure.

    Example:

    ```python
    reward = RewardModel(base_url="http://127.0.0.1:8000", model="Skywork/Skywork-Reward-V2-Qwen3-0.6B")
    asyncio.run(reward(["4"], prompts=["2+2="]))
    ```
    """

    endpoint: str = "classify"
    class_index: int = 0

    __name__ = "reward_model"  # TRL logs an instance under this name; not a dataclass field, as it has no annotation
    _models_path = "/v1/models"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.endpoint not in ENDPOINTS:
            raise ValueError(f"endpoint={self.endpoint!r} gives no score. Write one of {', '.join(ENDPOINTS)}.")
        if self.base_url.endswith(("/v1", "/score", "/classify")):
            raise ValueError(
                f"base_url={self.base_url!r} has a path at its end under which vLLM does not serve /{self.endpoint}. "
                f"Write {self.base_url.rpartition('/')[0]}."
            )
        if not isinstance(self.class_index, int) or self.class_index < 0:
            raise ValueError(f"class_index={self.class_index!r} is not the number of a class. Write 0 or more.")
        if self.class_index and self.endpoint == "score":
            raise ValueError(
                f"class_index={self.class_index} has no effect with endpoint='score', which gives one number. Remove "
                "it, or write endpoint: classify."
            )

    async def __call__(
        self,
        completions: Sequence[Completion],
        *,
        prompts: Sequence[Any],
        log_extra: Callable[[str, list[str]], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **kwargs: Any,
    ) -> list[float | None]:
        """Grade a batch, as described in the class."""
        requests = [self._request(*pair, "") for pair in zip(prompts, completions, strict=True)]
        return await self._grade(requests, log_extra, log_metric)

    def _request(self, prompt: Any, completion: Completion, reference: str) -> tuple[str, dict[str, Any]]:
        text = as_one_message(completion_text(completion))
        if self.endpoint == "score":
            given: dict[str, Any] = {"text_1": prompt_text(prompt), "text_2": text}
        elif isinstance(prompt, str):
            given = {"input": prompt + text}
        else:
            given = {"messages": [*prompt, {"role": "assistant", "content": text}]}
        return f"/{self.endpoint}", {"model": self.model, **given}

    def _score(self, reply: Any) -> float:
        try:
            (data,) = reply["data"]
            score = data["score"] if self.endpoint == "score" else data["probs"][self.class_index]
        except (TypeError, KeyError, IndexError, ValueError):
            what = "score" if self.endpoint == "score" else f"class {self.class_index}"
            raise ValueError(f"the reply has no {what} in data[0]: {str(reply)[:200]!r}") from None
        if isinstance(score, bool) or not isinstance(score, (int, float)) or not math.isfinite(score):
            raise ValueError(f"the reply has the score {score!r}, which is not a finite number")
        return float(score)

    def _status(self, score: float) -> str:
        return "ok"
