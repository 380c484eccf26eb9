"""What the framework tests share: a shop's documents, BM25 beside us, and an OpenAI-compatible server on localhost."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from crisp_rag import CrispIndex

SHOP = {
    "refunds": "Refunds are paid within five days of the parcel's return.",
    "domestic": "Parcels inside the country arrive after two days.",
    "abroad": "Parcels abroad take nine days and cost twelve euros.",
    "hours": "The shop opens at nine in the morning and closes at six.",
    "gifts": "Gift cards never expire and cannot be paid out in cash.",
    "watches": "Repairing a watch takes two weeks.",
    "E-4417": "Article E-4417 is a leather strap in brown.",
}


@pytest.fixture(scope="session")
def shop_texts() -> dict[str, str]:
    return dict(SHOP)


@pytest.fixture
def shop(tmp_path: Path, default_encoder: Any) -> Iterator[CrispIndex]:
    with CrispIndex.create(tmp_path / "shop.crisp", default_encoder) as index:
        index.add_texts(list(SHOP.values()), ids=list(SHOP), metadatas=[{"source": f"{name}.md"} for name in SHOP])
        yield index


class LocalModel:
    """A chat model that reads its prompt: it answers with the line of the context that shares most words with the
    question, and asks for a tool first where it is offered one.  Speaks OpenAI's protocol over HTTP."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        model = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                model.requests.append(request)
                message = model.answer(request)
                if request.get("stream"):
                    chunks = [{**message, "tool_calls": message.get("tool_calls")}, {}]
                    body = (
                        "".join(f"data: {json.dumps(model.wrapped(delta=chunk))}\n\n" for chunk in chunks)
                        + "data: [DONE]\n\n"
                    )
                    self.reply(body, "text/event-stream")
                else:
                    self.reply(json.dumps(model.wrapped(message=message)), "application/json")

            def reply(self, body: str, kind: str) -> None:
                data = body.encode()
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def wrapped(self, **choice: Any) -> dict[str, Any]:
        done = "tool_calls" if (choice.get("message") or {}).get("tool_calls") else "stop"
        return {
            "id": "chat-1",
            "object": "chat.completion.chunk" if "delta" in choice else "chat.completion",
            "created": 1,
            "model": "gpt-4o-mini",
            "choices": [{"index": 0, "finish_reason": done if choice.get("message") else None, **choice}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        messages = request["messages"]
        question = next(text_of(message) for message in reversed(messages) if message["role"] == "user")
        if request.get("tools") and messages[-1]["role"] != "tool":
            function = request["tools"][0]["function"]
            (argument,) = list(function["parameters"]["properties"])[:1]
            call = {"name": function["name"], "arguments": json.dumps({argument: question})}
            calls = [{"index": 0, "id": "call-1", "type": "function", "function": call}]
            return {"role": "assistant", "content": None, "tool_calls": calls}
        return {"role": "assistant", "content": self.read("\n".join(map(text_of, messages)), question)}

    def read(self, prompt: str, question: str) -> str:
        """The line that answers best, with the number of the source that it stands under."""
        asked = re.split("Query:|Question:", question)[-1].split("Answer:")[0]
        wanted = words_of(asked)
        best, source, score = "I do not know.", "", 1
        number = ""
        for line in prompt.splitlines():
            if found := re.match(r"Source (\d+):", line.strip()):
                number = f" [{found[1]}]"
            if (shared := len(wanted & words_of(line))) > score and "?" not in line:
                best, source, score = line.strip(), number, shared
        return best + source

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def text_of(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "\n".join(part.get("text", "") for part in content)


def words_of(text: str) -> set[str]:
    return {word.strip(".,?!:'").lower().removesuffix("s") for word in text.split()}


@pytest.fixture
def local_model() -> Iterator[LocalModel]:
    model = LocalModel()
    yield model
    model.close()


class Bm25:
    """Keyword search over the shop's texts with bm25s: ids, best first."""

    def __init__(self) -> None:
        import bm25s

        self._bm25s, self._ids = bm25s, list(SHOP)
        self._index = bm25s.BM25()
        self._index.index(self._tokens(list(SHOP.values())), show_progress=False)

    def _tokens(self, texts: list[str]) -> Any:
        return self._bm25s.tokenize(texts, stopwords="en", token_pattern=r"(?u)\b[\w-]+\b", show_progress=False)

    def search(self, query: str, k: int = 3) -> list[tuple[str, float]]:
        found, scores = self._index.retrieve(self._tokens([query]), k=k, show_progress=False)
        return [(self._ids[number], float(score)) for number, score in zip(found[0], scores[0]) if score > 0]


@pytest.fixture(scope="session")
def bm25() -> Bm25:
    pytest.importorskip("bm25s")
    return Bm25()
