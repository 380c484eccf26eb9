"""Keys and prompts go to those who were named, over lines that nobody reads."""

from __future__ import annotations

from typing import Any

import pytest

from crisp_rag.errors import LLMError
from crisp_rag.pipelines.chat import OpenAIChat, as_chat
from crisp_rag.pipelines.endpoints import check_redirect, keeps_secrets

pytest.importorskip("openai")

SAFE = [
    "https://api.example.org/v1",
    "http://localhost:11434/v1",
    "http://127.0.0.1:1/v1",
    "http://127.8.0.1",
    "http://[::1]:8/v1",
]
PLAIN = ["http://api.example.org/v1", "http://192.168.1.5:11434/v1", "http://localhost.example.org", "http://127.0.0.1.nip.io",
         "ftp://localhost", "http://0.0.0.0:1", "http://user@example.org"]  # fmt: skip


@pytest.mark.parametrize(("url", "safe"), [*((url, True) for url in SAFE), *((url, False) for url in PLAIN)])
def test_a_key_goes_to_https_or_to_this_machine(url: str, safe: bool) -> None:
    assert keeps_secrets(url) is safe


def test_over_a_plain_line_no_key_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    assert OpenAIChat("http://192.168.1.5:11434/v1:llama3")._client.api_key != "sk-secret"
    assert OpenAIChat("https://192.168.1.5/v1:llama3")._client.api_key == "sk-secret"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://example.org/v1")
    with pytest.raises(LLMError, match="a key goes to https"):
        as_chat("openai:gpt-5-mini")


def test_an_endpoint_that_wants_a_key_that_is_kept_back_is_told_apart(
    endpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setattr("crisp_rag.pipelines.chat.keeps_secrets", lambda url: False)
    endpoint.respond = lambda handler, number: endpoint.status(handler, 401)
    with pytest.raises(LLMError, match="OPENAI_API_KEY goes to https"):
        list(as_chat(endpoint.spec).stream("", "?"))
    assert endpoint.keys == ["Bearer none"]


@pytest.mark.parametrize("code", [301, 302, 307, 308])
def test_a_redirect_to_another_host_is_refused_and_the_prompt_stays(endpoint: Any, code: int) -> None:
    def respond(handler: Any, number: int) -> None:
        handler.send_response(code)
        handler.send_header("Location", f"http://localhost:{handler.server.server_address[1]}/v1/chat/completions")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    endpoint.respond = respond
    with pytest.raises(LLMError, match="sends the question on to http://localhost"):
        list(as_chat(endpoint.spec, retries=0).stream("", "a secret question"))
    assert len(endpoint.requests) == 1, "nobody else was asked"


@pytest.mark.parametrize(
    ("asked", "location", "good"),
    [
        ("https://a.org/v1", "/v1/", True),
        ("https://a.org/v1", "https://a.org/v2", True),
        ("http://a.org/v1", "https://a.org/v1", True),
        ("https://a.org/v1", "http://a.org/v1", False),
        ("https://a.org/v1", "//b.org/v1", False),
        ("https://a.org/v1", "https://a.org:8443/v1", False),
        ("https://a.org/v1", "https://a.org.b.org/", False),
        ("https://a.org/v1", "https://a.org@b.org/", False),
    ],
)
def test_a_redirect_stays_within_the_host(asked: str, location: str, good: bool) -> None:
    if good:
        check_redirect(asked, location)
    else:
        with pytest.raises(LLMError, match="was not asked"):
            check_redirect(asked, location)
