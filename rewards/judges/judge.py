"""The reward `judge`: the grade that a language model gives, asked over an OpenAI-compatible address."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..shared.batch import Completion, completion_text, reference_text
from .quoting import placeholders, quoted_message, read_template
from .served import ServedReward, prompt_text

_NUMBER = re.compile(r"[-+]?[0-9]{1,30}(?:\.[0-9]{1,30})?")


@dataclass(frozen=True, kw_only=True)
class Judge(ServedReward):
    """The grade of a language model, from 0 for the lowest grade of the scale to 1 for the highest.

    The judge gets one message: the template, in which prompt, completion and reference answer are quoted
    (`quoting.py`), and a sentence that says what to reply. The reply must be a number, or with `field` a JSON object.
    Words around it make it unusable. The judge samples with temperature 0. Equal requests are sent once, also by a
    resumed run or by another run, because the replies are kept in `cache`.

    A request is repeated after a time limit, a lost connection, the statuses 408, 425, 429 and 5xx, or a reply that is
    not JSON. The wait doubles each time. A longer `Retry-After` is obeyed, up to a minute. Other statuses are not
    repeated.

    Args:
        template: What the judge is asked, as text with `{completion}` and, if wanted, `{prompt}` and `{solution}`; or
            the path of a text file.
        scale: The lowest and the highest grade.
        field: Key of the grade in a JSON object. None: the reply is a number.
        max_tokens: Limit of the reply. A reply that is cut off is not used.
        base_url: The address before `/chat/completions`, for example `http://127.0.0.1:8000/v1`.
        model, api_key_env, cache, concurrency, timeout, retries: See `served.ServedReward`.

    Columns read:
        solution: The reference answer, if the template has `{solution}`.

    Returns:
        Per completion: a value in [0, 1] (`ok` for 1.0, `wrong` below), or None (`no_gold`: the template needs a
        reference answer and there is none; `infra`: there is no usable grade).

    Raises:
        ValueError: An option cannot be used.
        RuntimeError: More than 10 % of a batch is `infra`. The error contains the first failure.

    Example:

    ```python
    judge = Judge(base_url="http://127.0.0.1:8000/v1", model="Qwen/Qwen2.5-7B-Instruct", template="Fair? {completion}")
    asyncio.run(judge(["Go away."], prompts=["May I ask something?"]))
    ```
    """

    template: str
    scale: tuple[float, float] = (0.0, 10.0)
    field: str | None = None
    max_tokens: int = 256

    __name__ = "judge"  # TRL logs an instance under this name; not a dataclass field, as it has no annotation

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.base_url.endswith("/chat/completions"):
            raise ValueError(
                f"base_url={self.base_url!r} has the path of the requests at its end, which would appear twice. Write "
                f"{self.base_url.removesuffix('/chat/completions')}."
            )
        grades = self.scale if isinstance(self.scale, (list, tuple)) else ()
        numbers = all(isinstance(grade, (int, float)) and math.isfinite(grade) for grade in grades)
        if len(grades) != 2 or not numbers or not grades[0] < grades[1]:
            raise ValueError(
                f"scale={self.scale} is not a lowest and a highest grade, so no grade could be converted. Write "
                "two numbers, for example [0, 10]."
            )
        if self.field is not None and (not isinstance(self.field, str) or not self.field.strip()):
            raise ValueError(
                f"field={self.field!r} is not a key of a JSON object. Write a name such as score, or leave it out."
            )
        if not isinstance(self.max_tokens, int) or self.max_tokens < 1:
            raise ValueError(f"max_tokens={self.max_tokens!r} would leave no room for a grade. Write 1 or more.")
        object.__setattr__(self, "template", read_template(self.template))
        object.__setattr__(self, "scale", tuple(self.scale))

    async def __call__(
        self,
        completions: Sequence[Completion],
        *,
        prompts: Sequence[Any],
        solution: Sequence[Any] | None = None,
        log_extra: Callable[[str, list[str]], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **kwargs: Any,
    ) -> list[float | None]:
        """Grade a batch, as described in the class."""
        references = [reference_text(value) for value in solution or [None] * len(completions)]
        requests = [
            self._request(prompt, completion, reference) if reference or not self._needs_reference else None
            for prompt, completion, reference in zip(prompts, completions, references, strict=True)
        ]
        return await self._grade(requests, log_extra, log_metric)

    def check_references(self, solution: Sequence[Any] | None = None, **columns: Any) -> list[str]:
        """Whether each row has the reference answer that the template needs: `ok` or `no_gold`.

        Raises:
            ValueError: The template needs reference answers, and there is no column with them.
        """
        if not self._needs_reference:
            return ["ok"] * len(next(iter(columns.values()), []))
        if solution is None:
            raise ValueError(
                f"The template of the reward 'judge' has {{solution}}, but the data set has {', '.join(columns)}. "
                "Rename a column, for example dataset_columns: {answer: solution}, or remove {solution}."
            )
        return ["ok" if reference_text(value) else "no_gold" for value in solution]

    @property
    def _needs_reference(self) -> bool:
        return "solution" in placeholders(self.template)

    @property
    def _reply_form(self) -> str:
        low, high = self.scale
        grade = f"a number from {low:g} to {high:g}"
        if self.field is None:
            return f"Reply with {grade} and nothing else."
        return f"Reply with a JSON object and nothing else. Its key {json.dumps(self.field)} is {grade}."

    def _request(self, prompt: Any, completion: Completion, reference: str) -> tuple[str, dict[str, Any]]:
        texts = {"prompt": prompt_text(prompt), "completion": completion_text(completion), "solution": reference}
        shown = {name: texts[name] for name in placeholders(self.template)}
        message = {"role": "user", "content": quoted_message(self.template, shown, self._reply_form)}
        body = {"model": self.model, "messages": [message], "temperature": 0, "max_tokens": self.max_tokens}
        return "/chat/completions", body

    def _score(self, reply: Any) -> float:
        try:
            choice = reply["choices"][0]
            text, reason = choice["message"]["content"].strip(), choice.get("finish_reason")
        except (TypeError, KeyError, IndexError, AttributeError):
            raise ValueError(f"the reply has no text in choices[0].message.content: {str(reply)[:200]!r}") from None
        if reason == "length":
            raise ValueError(f"the reply was cut off at max_tokens={self.max_tokens}: {text[:100]!r}")
        low, high = self.scale
        grade = read_number(text) if self.field is None else read_field(text, self.field)
        if grade is None or not low <= grade <= high:
            raise ValueError(f"the judge replied {text[:200]!r}, but was told: {self._reply_form.rstrip('.')}")
        return (grade - low) / (high - low)

    def _status(self, score: float) -> str:
        return "ok" if score == 1.0 else "wrong"


def read_number(text: str) -> float | None:
    """The number that is the whole text; None if it is not a number, or if there is anything else.

    >>> read_number("7"), read_number("-0.5"), read_number("7/10"), read_number("Grade: 7")
    (7.0, -0.5, None, None)
    """
    return float(text) if _NUMBER.fullmatch(text) else None


def read_field(text: str, name: str) -> float | None:
    """The number with this key in a JSON object; None if the text is anything else or has the key twice.

    >>> read_field('{"why": "short", "score": 7}', "score"), read_field('{"score": "7"}', "score")
    (7.0, None)
    """
    try:
        pairs = json.loads(text, object_pairs_hook=tuple)
        values = [value for key, value in pairs if key == name] if text.startswith("{") else []
    except (ValueError, RecursionError):
        return None
    if len(values) != 1 or isinstance(values[0], bool) or not isinstance(values[0], (int, float)):
        return None
    return float(values[0]) if abs(values[0]) < 1e30 else None
