"""The replies of a server on the disk, so that equal requests are sent once, also by a resumed run."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


def request_key(path: str, body: Mapping[str, Any]) -> str:
    """The key of a request: a hash of its path and its whole body, which contains the name of the model.

    >>> request_key("/score", {"model": "m", "text_1": "a"}) == request_key("/score", {"text_1": "a", "model": "m"})
    True
    """
    return sha256(json.dumps([path, body], sort_keys=True).encode()).hexdigest()


class ReplyCache:
    """A folder with one file per reply. Several processes may use it at the same time.

    Args:
        folder: The folder, which is created when the first reply is kept. None: no reply is kept.
    """

    def __init__(self, folder: str | None):
        self._folder = None if folder is None else Path(folder).expanduser()
        self._can_keep = True

    def find(self, key: str) -> Any:
        """The reply to a request; None if there is none, or if its file is damaged."""
        if self._folder is None:
            return None
        try:
            return json.loads(self._file(self._folder, key).read_bytes())
        except (OSError, ValueError):
            return None

    def keep(self, key: str, reply: Any) -> None:
        """Keep a reply. Its file is written whole or not at all.

        If the disk refuses it, a warning says so, and no further reply is kept. Replies that
        are already there are still found.
        """
        if self._folder is None or not self._can_keep:
            return
        path = self._file(self._folder, key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".")
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    json.dump(reply, file)
                os.replace(temporary, path)
            except BaseException:
                os.unlink(temporary)
                raise
        except OSError as error:
            self._can_keep = False
            logger.warning("Replies cannot be kept, so a resumed run asks for them again: %s", error)

    @staticmethod
    def _file(folder: Path, key: str) -> Path:
        return folder / key[:2] / f"{key}.json"
