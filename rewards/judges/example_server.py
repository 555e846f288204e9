"""A server with the address of a judge that grades sums by a rule, to try the reward `judge` without a large model.

    python -m rewards.judges.example_server --port 8011

The model `sums` reads a prompt such as `3+4=` and a completion from the quotes of the message. It gives 10 for the
right sum, 3 if only the last digit is right, and 0 otherwise.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "sums"

_QUOTE = re.compile(r"\[BEGIN (\w+) (\w{16})\]\n(.*?)\n\[END \1 \2\]", re.DOTALL)
_SUM = re.compile(r"\s*(\d+)\s*\+\s*(\d+)\s*=?\s*")


def grade(message: str) -> int:
    """The grade of a quoted sum.

    >>> quotes = "[BEGIN {0} 0123456789abcdef]\\n{1}\\n[END {0} 0123456789abcdef]\\n"
    >>> [grade(quotes.format("prompt", "3+4=") + quotes.format("completion", text)) for text in ("7", "17", "8")]
    [10, 3, 0]
    """
    texts = {name: text for name, _, text in _QUOTE.findall(message)}
    terms = _SUM.fullmatch(texts.get("prompt", ""))
    answer = texts.get("completion", "").strip()
    if terms is None or not answer.isdecimal():
        return 0
    total = int(terms[1]) + int(terms[2])
    return 10 if answer == str(total) else 3 if answer[-1] == str(total)[-1] else 0


class Handler(BaseHTTPRequestHandler):
    """Answers `GET /v1/models` and `POST /v1/chat/completions`."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self._answer(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})
        else:
            self._answer(404, {"error": {"message": f"{self.path} does not exist"}})

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path != "/v1/chat/completions":
            self._answer(404, {"error": {"message": f"{self.path} does not exist"}})
            return
        try:
            message = json.loads(content)["messages"][-1]["content"]
            reply = str(grade(message))
        except (ValueError, TypeError, KeyError, IndexError) as error:
            self._answer(400, {"error": {"message": f"The request has no message: {error}"}})
            return
        used = {"prompt_tokens": len(message.split()), "completion_tokens": 1}  # it counts words
        self._answer(
            200,
            {
                "object": "chat.completion",
                "model": MODEL,
                "choices": [{"index": 0, "message": {"role": "assistant", "content": reply}, "finish_reason": "stop"}],
                "usage": {**used, "total_tokens": sum(used.values())},
            },
        )

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Print nothing for a request."""


class Server(ThreadingHTTPServer):
    """The server. Its queue takes the connections that a whole batch opens at once."""

    request_queue_size = 128


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m rewards.judges.example_server", description=__doc__)
    parser.add_argument("--port", type=int, default=8011, help="port on 127.0.0.1 (default: %(default)s)")
    server = Server(("127.0.0.1", parser.parse_args(argv).port), Handler)
    print(f"A judge of sums answers at http://127.0.0.1:{server.server_port}/v1 as the model {MODEL!r}.", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()


if __name__ == "__main__":
    main()
