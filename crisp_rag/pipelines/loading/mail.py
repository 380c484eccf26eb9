"""Mails: who wrote what when, the text, and the attachments as files of their own."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage
from typing import Any

from crisp_rag.errors import IngestError
from crisp_rag.pipelines.loading.document import Extracted, Skipped
from crisp_rag.pipelines.loading.encodings import decode
from crisp_rag.pipelines.loading.html import html_to_markdown

_HEADERS = ("Subject", "From", "To", "Cc", "Date")
MAX_PARTS = 1000


def load_mail(path: object, data: bytes) -> Extracted:
    """An .eml file."""
    from crisp_rag.pipelines.loading.registry import supports

    message = email.message_from_bytes(data, policy=email.policy.default)
    if not isinstance(message, EmailMessage) or not any(
        message.get(name) for name in (*_HEADERS, "Received", "MIME-Version")
    ):
        raise IngestError(f"{path} cannot be read as a mail: it has no headers.")
    lines = [f"{name}: {_header(message, name)}" for name in _HEADERS if _header(message, name)]
    body = message.get_body(preferencelist=("plain", "html"))
    text, format, notes = "", "plain", []
    if isinstance(body, EmailMessage):
        decoded = decode(path, _bytes(body), _charset(body))
        text, notes = decoded.text, list(decoded.notes)
        if body.get_content_subtype() == "html":
            text, format = html_to_markdown(text)[0], "markdown"
    members: list[tuple[str, bytes]] = []
    skipped: list[Skipped] = []
    for number, part in enumerate(message.iter_attachments() if message.is_multipart() else (), 1):
        if number > MAX_PARTS:
            break
        name = (part.get_filename() or "").replace("/", "_")
        if part.get_content_type() == "message/rfc822":
            inner: Any = part.get_payload()
            content = inner[0].as_bytes() if isinstance(inner, list) and inner else b""
            members.append((name or f"mail-{number}.eml", content))
        elif name and supports(name):
            members.append((name, _bytes(part)))
        elif name and part.get_content_disposition() == "attachment":
            skipped.append(Skipped(name, "an attachment of an unsupported kind"))
    # Two blank-separated parts: a header line is no sentence of the text.
    whole = "\n\n".join(["\n\n".join(lines), text.strip()])
    subject = _header(message, "Subject")
    return Extracted(whole.strip() + "\n", format, subject, (), tuple(notes), tuple(members), tuple(skipped))  # type: ignore[arg-type]


def _header(message: EmailMessage, name: str) -> str:
    try:
        return " ".join(str(message.get(name) or "").split())
    except Exception:  # a header that the standard library stumbles over loses itself alone
        return ""


def _bytes(part: object) -> bytes:
    payload = part.get_payload(decode=True) if hasattr(part, "get_payload") else b""
    return payload if isinstance(payload, bytes) else b""


def _charset(part: EmailMessage) -> str | None:
    from crisp_rag.pipelines.loading.encodings import codec_of

    name = part.get_content_charset()
    return codec_of(name) if name else None
