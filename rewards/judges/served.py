"""What the rewards of this package share: options, a batch of requests, and the check before a run."""

from __future__ import annotations

import asyncio
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..shared.batch import Completion, reference_text, report
from .client import Client, RequestFailedError, check_address, key_from_environment
from .reply_cache import ReplyCache, request_key

logger = logging.getLogger(__name__)

TOLERATED = 0.1  # fraction of a batch that may stay ungraded; a server fails more often than a grader on this machine


def default_cache() -> str:
    """The folder of replies of all runs: `$XDG_CACHE_HOME/gbpo/judges`, by default `~/.cache/gbpo/judges`."""
    return str(Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "gbpo", "judges"))


@dataclass(frozen=True, kw_only=True)
class ServedReward(ABC):
    """A reward that asks a server. A subclass gives the request and reads the score from the reply.

    Args:
        base_url: Start of the server's address.
        model: Name of the model on the server.
        api_key_env: Name of the environment variable that contains the API key. The key is written nowhere.
        cache: Folder in which replies are kept. None: none is kept. Clear it if another model gets the same name.
        concurrency: Number of requests at the same time, per rank.
        timeout: Seconds for one whole request.
        retries: Number of retries of a request that failed but may succeed later.
    """

    base_url: str
    model: str
    api_key_env: str | None = None
    cache: str | None = field(default_factory=default_cache)
    concurrency: int = 32
    timeout: float = 60.0
    retries: int = 4

    __name__ = "served"
    _models_path = "/models"

    def __post_init__(self) -> None:
        check_address(self.base_url)
        object.__setattr__(self, "base_url", self.base_url.rstrip("/"))
        if not isinstance(self.model, str) or not self.model:
            raise ValueError(
                f"model={self.model!r} names no model, so the server would refuse every request. Write its name."
            )
        key_from_environment(self.api_key_env)
        ReplyCache(self.cache)  # raises an error if it is no path
        for name, lowest, consequence in (
            ("concurrency", 1, "would send no request"),
            ("retries", 0, "is not a number of retries"),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or value < lowest:
                raise ValueError(f"{name}={value!r} {consequence}. Write {lowest} or more.")
        if not 0 < self.timeout < float("inf"):
            raise ValueError(f"timeout={self.timeout!r} is not a time to wait for a reply. Write a number of seconds.")

    @abstractmethod
    def _request(self, prompt: Any, completion: Completion, reference: str) -> tuple[str, dict[str, Any]]:
        """The path and the body of a request."""

    @abstractmethod
    def _score(self, reply: Any) -> float:
        """The reward that a reply gives. A reply without a usable score raises `ValueError`."""

    @abstractmethod
    def _status(self, score: float) -> str:
        """The status of a graded completion."""

    async def _grade(
        self,
        requests: Sequence[tuple[str, dict[str, Any]] | None],
        log_extra: Callable[[str, list[str]], None] | None,
        log_metric: Callable[[str, float], None] | None,
    ) -> list[float | None]:
        """Grade a batch. None in place of a request means that there is no reference answer."""
        keys = [None if request is None else request_key(*request) for request in requests]
        distinct = {key: request for key, request in zip(keys, requests, strict=True) if key and request}
        batch = _Batch(self, allowed_failures=int(TOLERATED * len(requests)))
        await batch.run(distinct)
        scores = [0.0 if key is None else batch.scores.get(key, 0.0) for key in keys]
        statuses = [
            "no_gold" if key is None else self._status(batch.scores[key]) if key in batch.scores else "infra"
            for key in keys
        ]
        if log_metric is not None and requests:
            log_metric(f"rewards/{self.__name__}/reused", 1 - batch.asked / len(requests))
            log_metric(f"rewards/{self.__name__}/retries", batch.retried / len(requests))
            log_metric(f"rewards/{self.__name__}/tokens", batch.tokens / len(requests))
            log_metric(f"rewards/{self.__name__}/seconds", sum(batch.seconds) / max(1, len(batch.seconds)))
        hint = f"The first failure: {batch.failures[0]}." if batch.failures else ""
        if hint:
            logger.warning("The reward %r left a completion ungraded. %s", self.__name__, hint)
        return report(self.__name__, statuses, log_extra, log_metric, hint, scores, tolerated=TOLERATED)

    def check_server(self, columns: Mapping[str, Sequence[Any]]) -> str:
        """Ask the server for its models and for the score of one completion.

        Args:
            columns: The first rows of the data set. The completion is the reference answer of the first row, or an
                empty text if there is none.

        Returns:
            One line with what the server answered.

        Raises:
            ValueError: The server does not answer, does not have the model, or gives no score. The message is one line.
        """
        reference = reference_text((columns.get("solution") or [None])[0])
        request = self._request(columns["prompt"][0], reference, reference)
        try:
            score = asyncio.run(self._ask_once(request))
        except RequestFailedError as error:
            raise ValueError(
                f"The reward {self.__name__!r} cannot grade: {error}. Start the server, or correct the options of the "
                "reward."
            ) from None
        what = "the reference answer of the first row" if reference else "an empty completion"
        return f"{self.model} at {self.base_url} gives {score:g} to {what}"

    async def _ask_once(self, request: tuple[str, dict[str, Any]]) -> float:
        async with self._client() as client:
            try:
                listed = await client.ask("GET", self._models_path)
                models = [str(entry["id"]) for entry in listed["data"]]
            except (TypeError, KeyError):
                models = []  # some services do not list their models in this form
            if models and self.model not in models:
                raise RequestFailedError(f"model={self.model!r} is not one of the models there: {', '.join(models)}")
        batch = _Batch(self, allowed_failures=0)
        await batch.run({(key := request_key(*request)): request})
        if batch.failures:
            raise RequestFailedError(batch.failures[0])
        return batch.scores[key]

    def _client(self) -> Client:
        return Client(self.base_url, key_from_environment(self.api_key_env), self.timeout, self.retries)


@dataclass
class _Batch:
    """Different requests that are answered from the cache or by the server, and what this took.

    Args:
        reward: The reward.
        allowed_failures: After more failures than these nothing is asked any more, because the batch is lost.
    """

    reward: ServedReward
    allowed_failures: int
    scores: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    asked: int = 0
    retried: int = 0
    tokens: int = 0
    seconds: list[float] = field(default_factory=list)

    async def run(self, requests: Mapping[str, tuple[str, dict[str, Any]]]) -> None:
        """Find the score of each request, by its key."""
        cache = ReplyCache(self.reward.cache)
        missing = {}
        for key, request in requests.items():
            try:
                self.scores[key] = self.reward._score(cache.find(key))
            except ValueError:
                missing[key] = request
        self.asked = len(missing)
        if not missing:
            return
        slots = asyncio.Semaphore(self.reward.concurrency)

        async def ask(key: str, path: str, body: dict[str, Any]) -> None:
            async with slots:
                if len(self.failures) <= self.allowed_failures:
                    await self._ask(client, cache, key, path, body)

        async with self.reward._client() as client:
            await asyncio.gather(*(ask(key, *request) for key, request in missing.items()))
            self.retried, self.seconds = client.retried, client.seconds

    async def _ask(self, client: Client, cache: ReplyCache, key: str, path: str, body: dict[str, Any]) -> None:
        try:
            reply = await client.ask("POST", path, body)
            self.tokens += _tokens(reply)
            self.scores[key] = self.reward._score(reply)
        except (RequestFailedError, ValueError) as error:
            self.failures.append(str(error))
        else:
            cache.keep(key, reply)


def _tokens(reply: Any) -> int:
    """The number of tokens that the server read and wrote, by its own count; 0 if it does not tell."""
    try:
        return max(0, int(reply["usage"]["total_tokens"]))
    except (TypeError, KeyError, ValueError, OverflowError):
        return 0


def prompt_text(prompt: Any) -> str:
    """The text of a prompt: the text itself, or its messages, each with its role if there are several.

    >>> prompt_text([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1?"}])
    'system: Be brief.\\nuser: 1+1?'
    """
    if isinstance(prompt, str):
        return prompt
    texts = [_content(message) for message in prompt]
    if len(prompt) == 1:
        return texts[0]
    return "\n".join(f"{message['role']}: {text}" for message, text in zip(prompt, texts, strict=True))


def _content(message: Mapping[str, Any]) -> str:
    """The text of a message, whose content may be a list of parts."""
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text") or "" for part in content)
