"""Requests to a server over HTTP: limits of time and size, retries, and errors that say what to do."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import httpx2

MAX_REPLY = 4 * 2**20  # bytes; a longer reply is not read to its end
FIRST_WAIT = 1.0  # seconds before the first retry; each further wait is twice as long
LONGEST_WAIT = 60.0  # seconds before a retry, also if the server asks for more

_PASSING = {408, 425, 429}  # besides these, a 5xx status may pass; every other status is permanent
_ADVICE = {
    401: "The key is missing or wrong: name its environment variable in api_key_env",
    403: "The key may not use this model: check api_key_env and model",
    404: "The address or the model does not exist: check base_url and model",
}


class RequestFailedError(Exception):
    """A request got no usable reply.

    Args:
        reason: What happened, in one line.
        may_pass: Whether the same request may succeed later.
        wait: Seconds that the server asks to wait.
    """

    def __init__(self, reason: str, *, may_pass: bool = True, wait: float | None = None):
        super().__init__(reason)
        self.may_pass, self.wait = may_pass, wait


@dataclass
class Client:
    """Sends requests to one server. Use it as `async with Client(…) as client`, in one event loop.

    Args:
        base_url: Start of all addresses, without a slash at the end.
        key: The API key, or None. It appears in no message.
        timeout: Seconds for one whole request, from the connection to the last byte of the reply.
        retries: Number of retries of a request.
    """

    base_url: str
    key: str | None
    timeout: float
    retries: int
    retried: int = field(default=0, init=False)  # number of retries so far
    seconds: list[float] = field(default_factory=list, init=False)  # of each successful request, with its retries

    async def __aenter__(self) -> Client:
        headers = {
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",  # a compressed reply could be larger than it looks
        }
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key}"
        unlimited = httpx2.Limits(max_connections=None)  # the caller limits the number of requests
        encrypted = self.base_url.startswith("https:")  # otherwise certificates would be read for nothing
        self._http = httpx2.AsyncClient(headers=headers, timeout=None, limits=unlimited, verify=encrypted)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Send a request, and again after a while if it may succeed later.

        Args:
            method: `GET` or `POST`.
            path: The rest of the address after `base_url`.
            body: What is sent as JSON.

        Returns:
            The reply, parsed from JSON.

        Raises:
            RequestFailedError: Every attempt failed, or a failure is permanent.
        """
        start = time.perf_counter()
        for attempt in range(self.retries + 1):
            try:
                reply = await self._exchange(method, path, body)
                break
            except RequestFailedError as error:
                if not error.may_pass or attempt == self.retries:
                    raise
                wait = max(_wait(attempt), error.wait or 0.0)
            self.retried += 1
            await asyncio.sleep(min(wait, LONGEST_WAIT))
        self.seconds.append(time.perf_counter() - start)
        return reply

    async def _exchange(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        """Send a request once."""
        content = bytearray()
        address = f"{self.base_url}{path}"
        sent = None if body is None else json.dumps(body).encode()  # in ASCII, so that any text can be sent
        try:
            async with asyncio.timeout(self.timeout), self._http.stream(method, address, content=sent) as response:
                async for part in response.aiter_raw():
                    content += part
                    if len(content) > MAX_REPLY:
                        raise RequestFailedError(f"{address} sent more than {MAX_REPLY:,} bytes")
        except TimeoutError:
            reason = f"{address} did not send a whole reply within {self.timeout:g} seconds (timeout)"
            raise RequestFailedError(reason) from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            reason = " ".join(str(error).split()) or "the connection failed"
            raise RequestFailedError(f"{address}: {type(error).__name__}, {reason}") from None
        if response.status_code != 200:
            raise self._refusal(address, response, content)
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            raise RequestFailedError(f"{address} sent no JSON: {self._excerpt(content)}") from None

    def _refusal(self, address: str, response: httpx2.Response, content: bytearray) -> RequestFailedError:
        """The error for a status other than 200."""
        status = response.status_code
        if 300 <= status < 400:
            target = response.headers.get("location", "another address")[:200]
            reason = f"{address} redirects to {target}: write the address of the server itself as base_url"
            return RequestFailedError(reason, may_pass=False)
        advice = f". {_ADVICE[status]}" if status in _ADVICE else ""
        reason = f"{address} answered with the status {status}: {self._excerpt(content)}{advice}"
        wait = seconds_until(response.headers.get("retry-after"))
        return RequestFailedError(reason, may_pass=status >= 500 or status in _PASSING, wait=wait)

    def _excerpt(self, content: bytearray) -> str:
        """The beginning of a reply, in one line and without the key."""
        text = content.decode(errors="replace")
        if self.key:
            text = text.replace(self.key, "***")
        return repr(" ".join(text.split())[:200])


def _wait(attempt: int) -> float:
    """Seconds before a retry: twice as long each time, times a random number in [0.5, 1].

    Clients that failed at the same time then do not return at the same time. The random number does not come from the
    generator that a run seeds.
    """
    return FIRST_WAIT * 2**attempt * random.SystemRandom().uniform(0.5, 1.0)


def seconds_until(header: str | None) -> float | None:
    """What a header `Retry-After` asks for: a number of seconds, or a date. None if it cannot be read.

    >>> seconds_until("7"), seconds_until("soon"), seconds_until(None)
    (7.0, None, None)
    """
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header)
    try:
        date = parsedate_to_datetime(header)
    except (ValueError, OverflowError):
        return None
    return max(0.0, (date - datetime.now(UTC)).total_seconds()) if date.tzinfo else None


def check_address(base_url: str) -> None:
    """Raise `ValueError` if `base_url` cannot be the start of an address."""
    try:
        parts = urlsplit(str(base_url))
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(
            f"base_url={base_url!r} is not an address, so no completion could be graded. Write one such as "
            "http://127.0.0.1:8000/v1."
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError(
            f"base_url for {parts.hostname} contains a password, a query or a fragment, which would be written to "
            "config.json. Write the address alone, and name the environment variable of the key in api_key_env."
        )


def key_from_environment(name: str | None) -> str | None:
    """The API key in the environment variable `name`; None without a name.

    Raises:
        ValueError: The variable is not set, is empty, or contains characters that no header can carry.
    """
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        raise ValueError(
            f"api_key_env={name!r} is not set, so the server would refuse every request. Write the name of an "
            "environment variable that contains the key, and export it."
        )
    if not key.isascii() or not key.isprintable():
        raise ValueError(
            f"api_key_env={name!r} contains characters that a header cannot carry, so no request could be sent. "
            "Export the key alone."
        )
    return key
