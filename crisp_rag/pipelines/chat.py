"""Language models of whatever kind behind one small protocol: messages in, pieces of text out as they come.

    chat = as_chat("openai:gpt-5-mini")                       # key from OPENAI_API_KEY
    chat = as_chat("http://localhost:11434/v1:llama3")        # any OpenAI-compatible endpoint
    chat = as_chat(llama_index_llm)                           # any LLM object of LlamaIndex
    chat = as_chat(langchain_chat_model)                      # any chat model or runnable of LangChain
    for piece in chat.stream("Answer in one word.", "Is water wet?"):
        print(piece, end="")

Nothing waits for ever: a model that says nothing for ``timeout`` seconds, or is not done after ``deadline`` seconds, is
given up, whichever kind it is.  What goes wrong is an LLMError in one sentence.
"""

from __future__ import annotations

import os
import queue
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

from crisp_rag.errors import InvalidInputError, LLMError
from crisp_rag.pipelines.endpoints import client_for, keeps_secrets

TIMEOUT = 60.0
DEADLINE = 300.0
RETRIES = 2
_ENDPOINT = re.compile(r"(https?://[^/:\s]+(?::\d+)?(?:/[^:\s]*)?):(?!\d+(?:/|$))(\S+)")
_DONE = object()


@runtime_checkable
class Chat(Protocol):
    """A language model."""

    name: str

    def stream(self, system: str, user: str) -> Iterator[str]:
        """What the model answers, piece by piece.

        Raises:
            LLMError: if it cannot be reached, breaks off, or sends what cannot be read.
        """


def as_chat(
    llm: Any,
    *,
    timeout: float = TIMEOUT,
    deadline: float = DEADLINE,
    retries: int = RETRIES,
    max_tokens: int | None = None,
) -> Chat:
    """A Chat for whatever the user has.

    Args:
        llm: ``openai:MODEL``, ``URL:MODEL`` of an OpenAI-compatible endpoint, an LLM object of LlamaIndex, a chat model
            of LangChain, or a Chat.
        timeout: Seconds without a word after which the model is given up.
        deadline: Seconds after which it is given up in any case.
        retries: How often an endpoint is asked again that is busy or cannot be reached.
        max_tokens: Asked of an endpoint: tokens of an answer at most.

    Raises:
        InvalidInputError: if it is none of these.
        ImportError: naming the extra to install.
    """
    if isinstance(llm, str):
        return OpenAIChat(llm, timeout=timeout, deadline=deadline, retries=retries, max_tokens=max_tokens)
    # Neither framework is imported for the question: an object of theirs means that it is loaded already.
    llama_index, langchain = sys.modules.get("llama_index.core.llms"), sys.modules.get("langchain_core.runnables")
    if llama_index is not None and isinstance(llm, llama_index.LLM):
        return _Guarded(_name(llm), lambda system, user: _from_llama_index(llm, system, user), timeout, deadline)
    if langchain is not None and isinstance(llm, langchain.Runnable):
        return _Guarded(_name(llm), lambda system, user: _from_langchain(llm, system, user), timeout, deadline)
    if isinstance(llm, Chat):
        return llm
    raise InvalidInputError(
        f"{type(llm).__name__} is no language model: give openai:MODEL, URL:MODEL, an LLM of LlamaIndex or a chat model "
        "of LangChain."
    )


class _Guarded:
    """A Chat over a function that streams; it is waited for only so long."""

    def __init__(self, name: str, pieces: Callable[[str, str], Iterator[str]], timeout: float, deadline: float) -> None:
        self.name = name
        self.timeout = timeout
        self.deadline = deadline
        self._pieces = pieces

    def stream(self, system: str, user: str) -> Iterator[str]:
        """See :class:`Chat`."""
        end = time.monotonic() + self.deadline
        said: queue.Queue[Any] = queue.Queue()
        gone = threading.Event()
        # A thread of its own, because a model that hangs in a socket or a lock cannot be interrupted.
        threading.Thread(target=self._pump, args=(system, user, said, gone), daemon=True, name="crisp-rag-llm").start()
        try:
            while True:
                left = end - time.monotonic()
                try:
                    piece = said.get(timeout=max(0.0, min(self.timeout, left)))
                except queue.Empty:
                    limit = f"{self.timeout:g} s without a word" if left > self.timeout else f"{self.deadline:g} s"
                    raise LLMError(f"{self.name} was given up after {limit}: ask again, or allow it more time.") from None
                if piece is _DONE:
                    return
                if isinstance(piece, BaseException):
                    raise piece if isinstance(piece, LLMError) else LLMError(_reason(self.name, piece)) from piece
                yield piece
        finally:
            gone.set()

    def _pump(self, system: str, user: str, said: queue.Queue[Any], gone: threading.Event) -> None:
        try:
            for piece in self._pieces(system, user):
                if gone.is_set():
                    return
                if piece:
                    said.put(piece)
            said.put(_DONE)
        except BaseException as error:  # for the thread that waits
            said.put(error)


class OpenAIChat(_Guarded):
    """An OpenAI-compatible endpoint, through the ``openai`` package, at temperature 0.

    Args:
        spec: ``openai:MODEL`` or ``URL:MODEL``; the key comes from OPENAI_API_KEY, which only ``openai:`` insists on.  It
            goes to https or to this machine, never over a plain line.  Redirects to another host are refused.
        timeout, deadline, retries, max_tokens: As for :func:`as_chat`.  A request is repeated, after a pause, only where
            nothing has been said yet.
    """

    def __init__(
        self,
        spec: str,
        *,
        timeout: float = TIMEOUT,
        deadline: float = DEADLINE,
        retries: int = RETRIES,
        max_tokens: int | None = None,
    ) -> None:
        try:
            import openai
        except ImportError as error:
            raise ImportError("Asking an LLM endpoint needs openai: pip install 'crisp-rag[llm]'") from error
        self._openai = openai
        self._max_tokens = max_tokens
        self.url, self.model = _endpoint(spec)
        asked = self.url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com"
        key = os.environ.get("OPENAI_API_KEY", "")
        self._kept_key = bool(key) and not keeps_secrets(asked)
        if self.url is None and not key:
            raise LLMError("OPENAI_API_KEY is not set: openai:MODEL needs a key, URL:MODEL may do without.")
        if self.url is None and self._kept_key:
            raise LLMError(f"OPENAI_BASE_URL is {asked}, and a key goes to https or to this machine only.")
        super().__init__(f"{self.model} at {self.url or 'OpenAI'}", self._ask, timeout, deadline)
        self._client = openai.OpenAI(
            base_url=self.url,
            api_key=key if key and not self._kept_key else "none",
            timeout=timeout,
            max_retries=retries,
            http_client=client_for(openai),
        )

    def _ask(self, system: str, user: str) -> Iterator[str]:
        messages: Any = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        # OpenAI's own models know the limit by another name, and some refuse this one.
        name = "max_tokens" if self.url else "max_completion_tokens"
        limit: dict[str, Any] = {} if self._max_tokens is None else {name: self._max_tokens}
        count = 0
        ended = False
        try:
            with self._client.chat.completions.create(
                model=self.model, messages=messages, stream=True, temperature=0, **limit
            ) as events:
                for event in events:
                    for choice in event.choices or ():
                        ended = ended or bool(choice.finish_reason)
                        piece = choice.delta.content if choice.delta else None
                        if piece:
                            count += len(piece)
                            yield piece
        except GeneratorExit:
            raise
        except Exception as error:  # openai's, httpx's, json's: all the ways in which an endpoint can fail
            raise LLMError(self._what_happened(error, count)) from error
        if not count and not ended:
            raise LLMError(f"{self.name} sent no answer: is this an OpenAI-compatible endpoint?")
        if not ended:
            raise LLMError(f"{self.name} broke off after {count} characters: ask again.")

    def _what_happened(self, error: Exception, count: int) -> str:
        openai = self._openai
        if isinstance(error.__cause__, LLMError):
            return str(error.__cause__)
        if isinstance(error, openai.AuthenticationError) and self._kept_key:
            return f"{self.name} asks for a key, and OPENAI_API_KEY goes to https or to this machine only."
        if isinstance(error, openai.AuthenticationError):
            return f"{self.name} refuses the key in OPENAI_API_KEY."
        if isinstance(error, openai.NotFoundError):
            return f"{self.name}: there is no such model or path."
        if isinstance(error, openai.RateLimitError):
            return f"{self.name} is busy (429), also after {self._client.max_retries} retries: try again later."
        if isinstance(error, openai.APITimeoutError):
            return f"{self.name} was given up after {self.timeout:g} s without a word: ask again, or allow it more time."
        if isinstance(error, openai.APIStatusError):
            return f"{self.name} answers with status {error.status_code}: {_flat(error.message)}"
        if count:
            return f"{self.name} broke off after {count} characters ({_flat(error)}): ask again."
        if isinstance(error, openai.APIConnectionError):
            return f"{self.name} cannot be reached ({_flat(error.__cause__ or error)}): is it running?"
        return f"{self.name} sent what cannot be read ({_flat(error)}): is this an OpenAI-compatible endpoint?"


def _endpoint(spec: str) -> tuple[str | None, str]:
    """URL, None for OpenAI's own, and model."""
    kind, _, model = spec.partition(":")
    if kind == "openai" and model:
        return None, model
    if match := _ENDPOINT.fullmatch(spec):
        return match.group(1), match.group(2)
    raise InvalidInputError(
        f"{spec!r} names no model: give openai:MODEL or URL:MODEL, such as http://localhost:11434/v1:llama3."
    )


def _from_llama_index(llm: Any, system: str, user: str) -> Iterator[str]:
    from llama_index.core.llms import ChatMessage, MessageRole

    messages = [ChatMessage(role=MessageRole.SYSTEM, content=system), ChatMessage(role=MessageRole.USER, content=user)]
    whole = ""
    for response in llm.stream_chat(messages):
        piece = response.delta
        if piece is None:  # some models give only what has been said so far
            so_far = str(response.message.content or "")
            piece = so_far[len(whole) :] if so_far.startswith(whole) else so_far
        whole += piece
        yield piece


def _from_langchain(llm: Any, system: str, user: str) -> Iterator[str]:
    for chunk in llm.stream([("system", system), ("human", user)]):
        yield chunk if isinstance(chunk, str) else _text(getattr(chunk, "content", ""))


def _text(content: Any) -> str:
    """The text of a message's content, which is a string or a list of blocks."""
    if isinstance(content, str):
        return content
    parts = (block if isinstance(block, str) else block.get("text", "") for block in content)
    return "".join(part for part in parts if isinstance(part, str))


def _name(llm: Any) -> str:
    for attribute in ("model", "model_name"):
        value = getattr(llm, attribute, None)
        if isinstance(value, str) and value:
            return value
    return type(llm).__name__


def _reason(name: str, error: BaseException) -> str:
    return f"{name} failed ({type(error).__name__}: {_flat(error)}): ask again, or use another model."


def _flat(value: object, width: int = 200) -> str:
    flat = " ".join(str(value).split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"
