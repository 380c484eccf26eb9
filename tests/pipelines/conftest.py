"""A word encoder, and an OpenAI-compatible server that does what a test tells it to."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from crisp_rag.index.types import Hit


class WordEncoder:
    """One unit vector a word, the same for the same word: MaxSim counts shared words."""

    name = "words"
    fingerprint = "w0"
    dim = 1024
    pooling = "words"
    source = None
    max_document_tokens = 512

    def _encode(self, text: str) -> np.ndarray:
        words = text.lower().replace(".", " ").replace("?", " ").replace(",", " ").split() or ["-"]
        vectors = []
        for word in words:
            generator = np.random.default_rng(sum(ord(c) * 31**i for i, c in enumerate(word)) % 2**32)
            vector = generator.standard_normal(1024)
            vectors.append(vector / np.linalg.norm(vector))
        return np.array(vectors, dtype=np.float32)

    def encode_query(self, texts, **_):
        return self._encode(texts) if isinstance(texts, str) else [self._encode(text) for text in texts]

    encode_document = encode_query


@pytest.fixture(scope="session")
def words() -> WordEncoder:
    return WordEncoder()


@pytest.fixture
def hit() -> Callable[..., Hit]:
    def make(text: str, id_: str = "p1", relevance: float = 0.8, context: str = "", **metadata) -> Hit:
        return Hit(id_, 5.0, text, metadata, relevance, context)

    return make


class Endpoint:
    """Serves chat completions; ``respond`` gets the handler and the number of the request, from 1."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.respond: Callable[[Any, int], None] = lambda handler, number: says(handler, "Yes.")
        self.released = threading.Event()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                endpoint.requests.append(json.loads(self.rfile.read(length)))
                endpoint.keys.append(self.headers.get("Authorization", ""))
                self.close_connection = True
                endpoint.respond(self, len(endpoint.requests))

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self.spec = f"http://127.0.0.1:{self.server.server_address[1]}/v1:some-model:8b"

    def close(self) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()


def status(handler: Any, code: int, body: bytes = b"{}", **headers: str) -> None:
    handler.send_response(code)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def opens(handler: Any) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "text/event-stream")
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()


def sends(handler: Any, data: str) -> None:
    block = data.encode()
    handler.wfile.write(f"{len(block):x}\r\n".encode() + block + b"\r\n")
    handler.wfile.flush()


def event(piece: str | None, reason: str | None = None) -> str:
    choice = {"index": 0, "delta": {"content": piece} if piece is not None else {}, "finish_reason": reason}
    whole = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return f"data: {json.dumps(whole)}\n\n"


def says(handler: Any, text: str, pause: float = 0.0) -> None:
    """The text word by word, as a server streams it."""
    opens(handler)
    for word in text.split(" "):
        sends(handler, event(word + " "))
        time.sleep(pause)
    sends(handler, event(None, "stop"))
    sends(handler, "data: [DONE]\n\n")
    handler.wfile.write(b"0\r\n\r\n")


def drops(handler: Any) -> None:
    """Ends the connection in the middle of what it says."""
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    made = Endpoint()
    made.status, made.opens, made.sends, made.event = status, opens, sends, event
    made.says, made.drops = says, drops
    yield made
    made.close()
