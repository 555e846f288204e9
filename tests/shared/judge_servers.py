"""Local servers for the rewards `judge` and `reward_model`: good ones, and ones that misbehave."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODEL = "strict"


class Server(ThreadingHTTPServer):
    """Lists its model, and calls `answer(request, body)` for each POST.

    A text, dict or list that `answer` returns is sent as the content of a chat message or as JSON. If it returns None,
    it has sent something itself.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, answer):
        self.answer, self.stopped, self.lock = answer, threading.Event(), threading.Lock()
        self.models = {"data": [{"id": MODEL}]}
        self.bodies, self.headers, self.at_once, self.most_at_once = [], [], 0, 0
        super().__init__(("127.0.0.1", 0), Request)

    @property
    def root(self):
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def url(self):
        return f"{self.root}/v1"

    def handle_error(self, request, client_address):
        """Clients that go away while a server misbehaves are expected."""


class Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        self.send(self.server.models) if self.path == "/v1/models" else self.send({}, 404)

    def do_POST(self):
        server, body = self.server, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.bodies.append(body)
            server.headers.append(dict(self.headers))
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
        try:
            answer = server.answer(self, body)
        finally:
            with server.lock:
                server.at_once -= 1
        if isinstance(answer, str):
            self.send(chat(answer))
        elif answer is not None:
            self.send(answer)

    def send(self, content, status=200, **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.start(status, len(body), **headers)
        self.wfile.write(body)

    def start(self, status, length, **headers):
        """Send the head of a reply that promises `length` bytes."""
        self.send_response(status)
        for name, value in {"Content-Length": str(length), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def drop(self):
        """Close the connection."""
        self.close_connection = True
        self.wfile.flush()

    def log_message(self, *args):
        pass


def chat(content, finish_reason="stop", tokens=7):
    """The reply of a chat server."""
    message = {"role": "assistant", "content": content}
    return {"choices": [{"message": message, "finish_reason": finish_reason}], "usage": {"total_tokens": tokens}}


@contextmanager
def serving(answer, kind=Server):
    """A server in a thread, until the end of the block."""
    server = kind(answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stopped.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _drip(request, head=b""):
    request.wfile.write(head)
    while not request.server.stopped.wait(0.05):
        request.wfile.write(b" ")
        request.wfile.flush()


def _endless(request):
    request.start(200, 10**12)
    while not request.server.stopped.is_set():
        request.wfile.write(b"7" * 2**20)


def _truncated(request):
    request.start(200, 1000)
    request.wfile.write(b'{"choices": [')
    request.drop()


# what a server does instead of an answer → whether the same request may succeed later
MISBEHAVIOUR = {
    "hangs": (lambda request: request.server.stopped.wait(30) and None, True),
    "drips its head": (lambda request: _drip(request, b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nX:"), True),
    "drips its body": (lambda request: _drip(request, b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"), True),
    "closes the connection": (lambda request: request.drop(), True),
    "is no HTTP server": (lambda request: request.wfile.write(b"SSH-2.0\r\n\r\n") and request.drop(), True),
    "ends in the middle": (_truncated, True),
    "never ends": (_endless, True),
    "answers 500": (lambda request: request.send({"error": "out of memory"}, 500), True),
    "answers 503 with a page": (lambda request: request.send(b"<html>later</html>", 503), True),
    "answers 429": (lambda request: request.send({}, 429, Retry_After="0"), True),
    "sends no JSON": (lambda request: request.send(b"7"[:0]), True),
    "sends deep JSON": (lambda request: request.send(b"[" * 200_000), True),
    "sends bytes that are no text": (lambda request: request.send(b"\xff\xfe\x00"), True),
    "sends a compressed reply": (lambda request: request.send(b"\x1f\x8b\x08", Content_Encoding="gzip"), True),
    "redirects": (lambda request: request.send({}, 302, Location="http://127.0.0.1:9/v1"), False),
    "answers 400": (lambda request: request.send({"error": "prompt is too long"}, 400), False),
    "answers 401": (lambda request: request.send({"error": "no key"}, 401), False),
    "answers 404": (lambda request: request.send({}, 404), False),
    "sends a number": (lambda request: request.send(7), False),
    "sends no choices": (lambda request: request.send({"choices": []}), False),
    "sends no text": (lambda request: request.send(chat(None)), False),
    "sends a list as text": (lambda request: request.send(chat([7])), False),
    "stops too early": (lambda request: request.send(chat("7", "length")), False),
    "talks": (lambda request: request.send(chat("I give it a 7.")), False),
    "grades NaN": (lambda request: request.send(chat("NaN")), False),
    "grades above the scale": (lambda request: request.send(chat("11")), False),
    "grades below the scale": (lambda request: request.send(chat("-1")), False),
}
