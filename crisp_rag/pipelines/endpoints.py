"""Where a key and a prompt may go: over an encrypted line or to this machine, and to the host that was named alone."""

from __future__ import annotations

import ipaddress
from typing import Any
from urllib.parse import urljoin, urlsplit

from crisp_rag.errors import LLMError

_PORTS = {"http": 80, "https": 443}


def keeps_secrets(url: str) -> bool:
    """Whether nobody on the way can read what is sent to a URL: it is https, or leads to this machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and _is_here(parts.hostname or ""))


def check_redirect(asked: str, location: str) -> None:
    """See that an endpoint sends nobody elsewhere.

    Args:
        asked: The URL that was asked.
        location: What its answer says to ask instead.

    Raises:
        LLMError: if that is another host or port, or a plain line in place of an encrypted one.
    """
    here, there = urlsplit(asked), urlsplit(urljoin(asked, location))
    upgraded = (here.scheme, there.scheme) == ("http", "https") and (_port(here), _port(there)) == (80, 443)
    same = here.hostname == there.hostname and here.scheme == there.scheme and _port(here) == _port(there)
    if not same and not (upgraded and here.hostname == there.hostname):
        raise LLMError(
            f"{here.hostname} sends the question on to {there.scheme}://{there.netloc.rpartition('@')[2]}, which was not "
            "asked: name that address if you trust it."
        )


def client_for(openai: Any) -> Any:
    """An HTTP client of the ``openai`` package that follows redirects within the host only."""

    def look(response: Any) -> None:
        if "location" in response.headers and 300 <= response.status_code < 400:
            check_redirect(str(response.request.url), response.headers["location"])

    return openai.DefaultHttpxClient(event_hooks={"response": [look]})


def _is_here(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _port(parts: Any) -> int | None:
    return parts.port or _PORTS.get(parts.scheme)
