"""Language models: streamed as they come, and whatever they do wrong is one sentence, never a hang."""

from __future__ import annotations

import time

import pytest

from crisp_rag.errors import InvalidInputError, LLMError
from crisp_rag.pipelines.chat import as_chat

pytest.importorskip("openai")


def test_an_endpoint_is_streamed_word_by_word_as_it_comes(endpoint):
    endpoint.respond = lambda handler, number: endpoint.says(handler, "Within five days.", pause=0.15)
    arrivals = []
    for piece in as_chat(endpoint.spec).stream("Be brief.", "How long?"):
        arrivals.append((time.perf_counter(), piece))
    assert [piece for _, piece in arrivals] == ["Within ", "five ", "days. "]
    assert arrivals[-1][0] - arrivals[0][0] > 0.2, "the first word is there before the last is said"
    request = endpoint.requests[0]
    assert request["model"] == "some-model:8b" and request["stream"] is True and request["temperature"] == 0
    assert [message["content"] for message in request["messages"]] == ["Be brief.", "How long?"]


def test_the_key_comes_from_the_environment(endpoint, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    list(as_chat(endpoint.spec).stream("", "?"))
    assert endpoint.keys == ["Bearer sk-test"]


def test_openai_needs_a_key_and_a_local_endpoint_does_not(endpoint, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(LLMError, match="OPENAI_API_KEY is not set"):
        as_chat("openai:gpt-5-mini")
    assert "".join(as_chat(endpoint.spec).stream("", "?")).strip() == "Yes."


def test_a_busy_endpoint_is_asked_again(endpoint):
    def respond(handler, number):
        if number == 1:
            endpoint.status(handler, 429, retry_after="0")
        else:
            endpoint.says(handler, "Yes.")

    endpoint.respond = respond
    assert "".join(as_chat(endpoint.spec).stream("", "?")).strip() == "Yes."
    assert len(endpoint.requests) == 2


def test_an_endpoint_that_stays_busy_is_reported(endpoint):
    endpoint.respond = lambda handler, number: endpoint.status(handler, 429, retry_after="0")
    with pytest.raises(LLMError, match=r"some-model:8b at http.* is busy \(429\), also after 1 retries: try again later"):
        list(as_chat(endpoint.spec, retries=1).stream("", "?"))
    assert len(endpoint.requests) == 2


@pytest.mark.parametrize(
    ("code", "said"), [(401, "refuses the key"), (404, "no such model or path"), (400, "answers with status 400")]
)
def test_a_refusal_is_reported_at_once(endpoint, code, said):
    endpoint.respond = lambda handler, number: endpoint.status(handler, code)
    with pytest.raises(LLMError, match=said):
        list(as_chat(endpoint.spec).stream("", "?"))
    assert len(endpoint.requests) == 1


def test_silence_is_given_up(endpoint):
    endpoint.respond = lambda handler, number: endpoint.released.wait(10)
    started = time.perf_counter()
    with pytest.raises(LLMError, match=r"given up after 0.3 s without a word"):
        list(as_chat(endpoint.spec, timeout=0.3, retries=0).stream("", "?"))
    assert time.perf_counter() - started < 3


def test_silence_in_the_middle_is_given_up_too(endpoint):
    def respond(handler, number):
        endpoint.opens(handler)
        endpoint.sends(handler, endpoint.event("Within "))
        endpoint.released.wait(10)

    endpoint.respond = respond
    pieces = []
    with pytest.raises(LLMError, match=r"broke off|given up"):
        for piece in as_chat(endpoint.spec, timeout=0.3, retries=0).stream("", "?"):
            pieces.append(piece)
    assert pieces == ["Within "]


def test_signs_of_life_without_words_do_not_last_for_ever(endpoint):
    def respond(handler, number):
        endpoint.opens(handler)
        while not endpoint.released.wait(0.05):
            endpoint.sends(handler, ": still here\n\n")

    endpoint.respond = respond
    with pytest.raises(LLMError, match=r"given up after 0.6 s"):
        list(as_chat(endpoint.spec, timeout=5, deadline=0.6, retries=0).stream("", "?"))


def test_a_dropped_connection_is_reported_with_what_came(endpoint):
    def respond(handler, number):
        endpoint.opens(handler)
        endpoint.sends(handler, endpoint.event("Within "))
        endpoint.drops(handler)

    endpoint.respond = respond
    pieces = []
    with pytest.raises(LLMError, match=r"broke off after 7 characters"):
        for piece in as_chat(endpoint.spec).stream("", "?"):
            pieces.append(piece)
    assert pieces == ["Within "] and len(endpoint.requests) == 1, "half an answer is not asked for twice"


def test_an_answer_that_ends_without_saying_so_is_not_taken_for_whole(endpoint):
    def respond(handler, number):
        endpoint.opens(handler)
        endpoint.sends(handler, endpoint.event("It does not "))
        handler.wfile.write(b"0\r\n\r\n")

    endpoint.respond = respond
    with pytest.raises(LLMError, match=r"broke off after 12 characters"):
        list(as_chat(endpoint.spec).stream("", "?"))


@pytest.mark.parametrize("body", ["data: {not json\n\n", "<html>hello</html>\n", 'data: {"choices": 3}\n\n', ""])
def test_a_malformed_reply_is_reported(endpoint, body):
    def respond(handler, number):
        endpoint.opens(handler)
        if body:
            endpoint.sends(handler, body)
        handler.wfile.write(b"0\r\n\r\n")

    endpoint.respond = respond
    with pytest.raises(LLMError, match=r"is this an OpenAI-compatible endpoint"):
        list(as_chat(endpoint.spec).stream("", "?"))


def test_nobody_there_is_one_sentence():
    with pytest.raises(LLMError, match=r"cannot be reached .* is it running"):
        list(as_chat("http://127.0.0.1:9/v1:m", retries=0).stream("", "?"))


@pytest.mark.parametrize(
    "spec", ["gpt-5", "openai:", "http://localhost:11434/v1", "ftp://x:y", "", "http://localhost:11434"]
)
def test_a_spec_without_a_model_is_refused(spec):
    with pytest.raises(InvalidInputError, match="names no model"):
        as_chat(spec)


def test_what_is_no_model_is_refused():
    with pytest.raises(InvalidInputError, match="dict is no language model"):
        as_chat({})


def test_langchains_fake_streams():
    models = pytest.importorskip("langchain_core.language_models")
    chat = as_chat(models.FakeListChatModel(responses=["Five days."]))
    pieces = list(chat.stream("Be brief.", "How long?"))
    assert "".join(pieces) == "Five days." and len(pieces) > 1


def test_llama_indexes_mock_streams():
    llms = pytest.importorskip("llama_index.core.llms")
    said = "".join(as_chat(llms.MockLLM()).stream("Be brief.", "How long?"))
    assert "How long?" in said, "it repeats the prompt"


def test_a_frameworks_model_that_fails_or_hangs_is_reported_like_any_other():
    models = pytest.importorskip("langchain_core.language_models")
    chat = as_chat(models.FakeListChatModel(responses=["Five days."], sleep=30), timeout=0.3)
    with pytest.raises(LLMError, match=r"given up after 0.3 s"):
        list(chat.stream("", "?"))
    llms = pytest.importorskip("llama_index.core.llms")

    class Broken(llms.MockLLM):
        def stream_chat(self, messages, **kwargs):
            raise RuntimeError("the GPU is on fire")

    with pytest.raises(LLMError, match=r"Broken failed \(RuntimeError: the GPU is on fire\)"):
        list(as_chat(Broken()).stream("", "?"))
