"""reStructuredText by way of docutils; Sphinx's own roles and directives keep their text."""

from __future__ import annotations

import re
from typing import Any

from crisp_rag.pipelines.loading.document import INSTALL, Extracted
from crisp_rag.pipelines.loading.encodings import decode
from crisp_rag.pipelines.loading.html import html_to_markdown

_DIRECTIVE = re.compile(r"^[ \t]*\.\. ([a-zA-Z][\w:+.-]*)::", re.M)
_ROLE = re.compile(r":([a-zA-Z][\w:+.-]*):`([^`\n]{1,500})`")
_TARGET = re.compile(r"\s*<[^<>]*>$")
_NO_TEXT = ("toctree", "index", "currentmodule", "module", "highlight", "meta", "tabularcolumns")
_CODE = ("code-block", "sourcecode", "ipython", "prompt", "parsed-literal", "doctest", "testcode", "literalinclude")


def load_rst(path: object, data: bytes) -> Extracted:
    """An .rst file; it includes no other file and runs nothing."""
    try:
        from docutils.core import publish_string
    except ImportError as error:
        raise ImportError(f"Reading reStructuredText needs docutils: {INSTALL}") from error
    decoded = decode(path, data)
    _know(_DIRECTIVE.findall(decoded.text))
    settings = {
        "report_level": 5, "halt_level": 5, "raw_enabled": False, "file_insertion_enabled": False,
        "embed_stylesheet": False, "stylesheet_path": "", "syntax_highlight": "none", "doctitle_xform": False,
        "output_encoding": "unicode", "input_encoding": "unicode", "_disable_config": True, "line_length_limit": 10_000_000,
        "smart_quotes": False, "math_output": "LaTeX", "warning_stream": "",
    }  # fmt: skip
    html = publish_string(_ROLE.sub(_words, decoded.text), writer="html5", settings_overrides=settings)
    # docutils keeps the first level for a title of the whole.
    html = re.sub(r"<(/?)h([2-6])\b", lambda found: f"<{found.group(1)}h{int(found.group(2)) - 1}", str(html))
    text, _ = html_to_markdown(html)
    return Extracted(text, "markdown", notes=decoded.notes)


def _words(found: re.Match[str]) -> str:
    """A role of Sphinx's as its words; those that docutils knows stay."""
    from docutils.parsers.rst import roles

    name, text = found.group(1).lower(), found.group(2)
    if name in roles._role_registry or name in ("math", "sup", "sub", "superscript", "subscript", "code", "raw"):
        return found.group()
    if target := _TARGET.search(text):
        return text[: target.start()]
    return text.lstrip("~!")


def _know(names: list[str]) -> None:
    """Make directives that docutils does not know give their content: paragraphs, or code."""
    from docutils import nodes
    from docutils.parsers.rst import Directive, directives
    from docutils.parsers.rst.languages import en

    class Unknown(Directive):
        """Any directive: its arguments and its content as they stand."""

        has_content = True
        optional_arguments = 100
        final_argument_whitespace = True
        option_spec = _AnyOption()

        def run(self) -> list[Any]:
            if self.name in _NO_TEXT:
                return []
            if self.name in _CODE:
                return [nodes.literal_block("\n".join(self.content), "\n".join(self.content))]
            container = nodes.container()
            if self.arguments and not self.name.startswith("auto"):
                container += nodes.paragraph("", " ".join(self.arguments))
            self.state.nested_parse(self.content, self.content_offset, container)
            return [container]

    for name in set(map(str.lower, names)):
        if (name not in en.directives or name in _CODE) and name not in directives._directives:
            directives.register_directive(name, Unknown)


class _AnyOption(dict):  # type: ignore[type-arg]
    """Options of whatever name."""

    def __getitem__(self, name: str) -> Any:
        return lambda argument: argument

    def __bool__(self) -> bool:
        return True
