"""HTML as browsers build it, written as Markdown.

    markdown, title = html_to_markdown("<title>Tank</title><p>It holds 10<sup>6</sup> litres.")

The tree is built by lexbor, by the rules of HTML 5: omitted end tags, missing heads and wrong nesting are no errors.  It
is walked without recursion, because pages may be nested deeper than Python can call.  What a reader of the page would not
see is left out; a cell that spans rows or columns counts for each; superscripts are kept apart from numbers.
"""

from __future__ import annotations

import html as entities
import re
from collections.abc import Iterator
from typing import Any

from crisp_rag.errors import IngestError
from crisp_rag.pipelines.loading.document import INSTALL, Extracted
from crisp_rag.pipelines.loading.encodings import decode
from crisp_rag.pipelines.loading.markdown_writer import MarkdownWriter
from crisp_rag.pipelines.loading.superscripts import Notes, subscript, superscript

_NO_TEXT = (
    "script style noscript template svg iframe head canvas audio video object embed map datalist rt rp annotation "
    "annotation-xml frameset dialog"
)
_DROPPED = frozenset(_NO_TEXT.split())
_TAKES_LINES = (
    "address article aside body center details dd div dl dt fieldset figcaption figure footer form header hgroup html "
    "legend main nav p section summary option optgroup search menu dir caption"
)
_BLOCKS = frozenset(_TAKES_LINES.split())
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_MARKS = {"b": "**", "strong": "**", "i": "*", "em": "*", "s": "~~", "strike": "~~", "del": "~~", "code": "`", "kbd": "`",
          "samp": "`", "tt": "`"}  # fmt: skip
_VOID = "area|base|br|col|embed|hr|img|input|link|meta|param|source|track|wbr"
_SELF_CLOSED = re.compile(rf"<(?!(?:{_VOID})\b)([a-z][\w:-]*)((?:\s[^<>]*)?)/>", re.I)
_XHTML = re.compile(r"<\?xml\b|//DTD XHTML|<html\b[^<>]*\bxmlns\s*=", re.I)
_HIDING = re.compile(
    r"(?:^|[;{\s])(?:display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse)|opacity\s*:\s*0(?:\.0+)?(?![.\d])"
    r"|font-size\s*:\s*0(?:px|pt|em|rem|%)?(?![.\d]))",
    re.I,
)
_RULE = re.compile(r"([^{}]{1,500})\{([^{}]{0,5000})\}")
_SIMPLE_SELECTOR = re.compile(r"[\w\s.#>,\[\]=\"'*-]+")
_BLANKS = re.compile(r"[ \t\n\r\f]+")
_MAX_SPAN = 1000
_NOTE_BLOCKS = ("p", "li", "td", "div", "dt", "dd", "body")


def load_html(path: object, data: bytes) -> Extracted:
    """A web page."""
    decoded = decode(path, data)
    text, title = html_to_markdown(decoded.text)
    return Extracted(text, "markdown", title, notes=decoded.notes)


def html_to_markdown(markup: str) -> tuple[str, str]:
    """The visible text of a page as Markdown, and its title.

    Raises:
        IngestError: if it cannot be parsed.
        ImportError: naming the extra to install.
    """
    if _XHTML.search(markup[:2000]):
        markup = _as_html(markup)
    text, title = _Page(markup).read()
    if not text.strip() and _SELF_CLOSED.search(markup):
        # A <script/> that nothing closes swallows the page in HTML; who wrote it meant XHTML.
        text, title = _Page(_as_html(markup)).read()
    return text, title


def _as_html(markup: str) -> str:
    """XHTML with what HTML reads otherwise written out: empty elements and CDATA sections."""
    parts: list[str] = []
    position = 0
    while (start := markup.find("<![CDATA[", position)) >= 0:
        end = markup.find("]]>", start)
        if end < 0:
            break
        inside = markup[start + 9 : end]
        in_script = markup.rfind("<script", position, start) > markup.rfind("</script", position, start)
        parts += [markup[position:start], inside if in_script else entities.escape(inside)]
        position = end + 3
    parts.append(markup[position:])
    return _SELF_CLOSED.sub(r"<\1\2></\1>", "".join(parts))


class _Page:
    """One page on its way to Markdown."""

    def __init__(self, markup: str) -> None:
        try:
            from selectolax.lexbor import LexborHTMLParser
        except ImportError as error:
            raise ImportError(f"Reading HTML needs selectolax: {INSTALL}") from error
        # Unpaired surrogates and NUL are no characters of a page.
        self.tree = LexborHTMLParser(markup.encode("utf-8", "replace").replace(b"\0", b"").decode("utf-8"))
        self.root = self.tree.body or self.tree.root
        self.hidden: frozenset[int] = frozenset()

    def read(self) -> tuple[str, str]:
        title = self.tree.css_first("title")
        words = " ".join(title.text().split()) if title is not None else ""
        if self.root is None:
            return "", words
        self.hidden = frozenset(node.mem_id for node in self._hidden_by_rules())
        text = self._write()
        if not text.strip() and self.hidden:
            # Pages that scripts uncover hide themselves at first.
            self.hidden = frozenset()
            text = self._write()
        return text, words

    def _write(self) -> str:
        out = MarkdownWriter(Notes(self._note_names()))
        for node, entering in _walk(self.root, self._descends, out):
            if entering:
                self._enter(node, out)
            else:
                self._leave(node, out)
        return out.finish()

    def _descends(self, node: Any, out: MarkdownWriter) -> bool:
        """Whether what lies below a node is read."""
        tag = node.tag
        if tag == "-text":
            return False
        if tag in _DROPPED:
            return tag == "dialog" and "open" in node.attributes
        if tag in ("pre", "listing", "xmp", "plaintext", "textarea", "math"):
            return not self._invisible(node) and tag not in ("pre", "listing", "xmp", "math")
        if self._invisible(node):
            return False
        if tag == "nav":
            return _holds_content(node)
        # Of a navigation that nobody closed, the links before the content are left out.
        return not (tag in ("a", "ul", "ol", "menu") and _leads_navigation(node))

    def _invisible(self, node: Any) -> bool:
        if node.mem_id in self.hidden:
            return True
        given = node.attributes
        if not given or node.tag in ("body", "html"):
            return False
        style = given.get("style")
        return (
            ("hidden" in given and (given["hidden"] or "").lower() != "until-found")
            or (given.get("aria-hidden") or "").lower() == "true"
            or bool(style and _HIDING.search(style))
            or (node.tag == "input")
        )

    def _hidden_by_rules(self) -> Iterator[Any]:
        """Elements that a simple rule of the page's own style sheets hides; rules for print and the like are not asked."""
        for sheet in self.tree.css("style"):
            rules = sheet.text() or ""
            if "*/" in rules:  # without an end, looking for it from every beginning takes for ever
                rules = re.sub(r"/\*.*?\*/", " ", rules, flags=re.S)
            for found in _RULE.finditer(_without_media(rules)):
                selector = found.group(1).strip()
                if _HIDING.search(found.group(2)) and _SIMPLE_SELECTOR.fullmatch(selector):
                    try:
                        matched = self.tree.css(selector)
                    except Exception:  # a selector that lexbor does not know hides nothing
                        continue
                    yield from (node for node in matched if node.tag not in ("html", "body"))

    def _note_names(self) -> frozenset[str]:
        """What superscripts that begin a paragraph say: notes stand there, and their marks elsewhere are no powers."""
        names = set()
        for node in self.tree.css("sup"):
            parent: Any = node.parent
            first: Any = parent.child if parent is not None else None
            while first is not None and first.tag == "-text" and not (first.text_content or "").strip():
                first = first.next
            if first is None or first.mem_id != node.mem_id or parent.tag not in _NOTE_BLOCKS:
                continue
            if parent.tag != "td" or parent.prev is None or parent.next is not None:
                names.add(_text_of(node).strip())
        return frozenset(names)

    def _enter(self, node: Any, out: MarkdownWriter) -> None:
        tag = node.tag
        if tag == "-text":
            out.text(_BLANKS.sub(" ", node.text_content or ""))
        elif tag == "br":
            out.line_break()
        elif tag == "img":
            if not self._invisible(node):
                out.text(" ".join((node.attributes.get("alt") or "").split()))
        elif tag in ("pre", "listing", "xmp"):
            if not self._invisible(node):
                out.code(_text_of(node, breaks=True), _language(node))
        elif tag == "math":
            if not self._invisible(node):
                out.text(_formula(node))
        elif not self._descends(node, out):
            return
        elif tag in _HEADINGS:
            out.open_heading(_HEADINGS[tag])
        elif tag in ("ul", "ol"):
            out.open_list(_first_number(node) if tag == "ol" else None)
        elif tag == "li":
            out.open_item()
        elif tag == "blockquote":
            out.open_quote()
        elif tag == "table":
            out.open_table(_is_layout(node))
        elif tag == "tr":
            out.open_row(in_head=node.parent is not None and node.parent.tag == "thead")
        elif tag in ("td", "th"):
            spans = (_span(node, "rowspan"), _span(node, "colspan"))
            out.open_cell(*spans, heading=tag == "th")
        elif tag in ("sup", "sub"):
            out.open_mark(tag)
        elif tag in _MARKS:
            out.open_mark(_MARKS[tag])
        elif tag == "q":
            out.text("“")
        elif tag == "dd":
            out.open_definition()
        elif tag in _BLOCKS:
            out.end_block()

    def _leave(self, node: Any, out: MarkdownWriter) -> None:
        tag = node.tag
        if tag in _HEADINGS:
            out.close_heading()
        elif tag in ("ul", "ol"):
            out.close_list()
        elif tag == "li":
            out.close_item()
        elif tag == "blockquote":
            out.close_quote()
        elif tag == "table":
            out.close_table()
        elif tag in ("td", "th"):
            out.close_cell()
        elif tag == "sup":
            out.close_raised(lambda before, text: superscript(before, text, _is_note(node), out.notes))
        elif tag == "sub":
            out.close_raised(subscript)
        elif tag in _MARKS:
            out.close_mark(_MARKS[tag])
        elif tag == "q":
            out.text("”")
        elif tag == "dt":
            out.close_term()
        elif tag in _BLOCKS:
            out.end_block()


def _walk(root: Any, descends: Any, out: MarkdownWriter) -> Iterator[tuple[Any, bool]]:
    """Every node, on entering and on leaving it, without recursion; text nodes are only entered."""
    node = root
    while True:
        yield node, True
        opened = node.tag != "-text" and descends(node, out)
        child = node.child if opened else None
        if child is not None:
            node = child
            continue
        if opened:
            yield node, False
        while node.mem_id != root.mem_id and node.next is None:
            node = node.parent
            yield node, False
        if node.mem_id == root.mem_id:
            return
        node = node.next


def _nodes(root: Any) -> Iterator[Any]:
    """A node and all below it, without recursion."""
    node = root
    while True:
        yield node
        child = node.child
        if child is None:
            while node.mem_id != root.mem_id and node.next is None:
                node = node.parent
            if node.mem_id == root.mem_id:
                return
            child = node.next
        node = child


def _text_of(root: Any, breaks: bool = False) -> str:
    parts = []
    for node in _nodes(root):
        if node.tag == "-text":
            parts.append(node.text_content or "")
        elif breaks and node.tag == "br":
            parts.append("\n")
    return "".join(parts)


def _without_media(rules: str) -> str:
    """A style sheet without what stands inside @media and the like."""
    parts, depth, position = [], 0, 0
    for found in re.finditer(r"@[\w-]+[^;{}]{0,500}\{|[{}]", rules):
        sign = found.group()
        if sign == "}":
            if depth:
                depth -= 1
                position = found.end() if not depth else position
        elif depth:
            depth += 1
        elif sign != "{":
            parts.append(rules[position : found.start()])
            depth = 1
    return "".join([*parts, "" if depth else rules[position:]])


def _holds_content(nav: Any) -> bool:
    """Whether a navigation swallowed the page, as one without an end tag does."""
    if nav.css_first("h1, p, main, article") is None:
        return False
    linked = sum(len(_text_of(link).strip()) for link in nav.css("a"))
    return len(_text_of(nav).strip()) > 2 * linked


def _leads_navigation(node: Any) -> bool:
    """Whether a link, or a list of links, is a child of a navigation before anything else but its like."""
    parent = node.parent
    if parent is None or parent.tag != "nav":
        return False
    before = node
    while before is not None:
        if before.tag in ("ul", "ol", "menu"):
            linked = sum(len(_text_of(link).strip()) for link in before.css("a"))
            if 2 * linked < len(_text_of(before).strip()):
                return False
        elif before.tag not in ("a", "-comment", "br", "span", "button", "img") and (
            before.tag != "-text" or re.search(r"\w", before.text_content or "")
        ):
            return False
        before = before.prev
    return True


def _is_layout(table: Any) -> bool:
    """Whether a table only places things on the page: it holds tables, headings or nothing beside one another."""
    role = (table.attributes.get("role") or "").lower()
    if role in ("presentation", "none") or table.css_first("table table, td h1, td h2, td h3, td pre") is not None:
        return True
    cells = table.css("td, th")
    return all(cell.prev is None or not _has_cell_before(cell) for cell in cells[:200])


def _has_cell_before(cell: Any) -> bool:
    before = cell.prev
    while before is not None:
        if before.tag in ("td", "th"):
            return True
        before = before.prev
    return False


def _span(cell: Any, name: str) -> int:
    try:
        number = int(cell.attributes.get(name) or 1) if name in cell.attributes else 1
    except ValueError:
        return 1
    if number == 0 and name == "rowspan":
        return _MAX_SPAN  # down to the last row
    return max(1, min(number, _MAX_SPAN))


def _first_number(node: Any) -> int:
    try:
        return int(node.attributes.get("start") or 1)
    except ValueError:
        return 1


def _language(pre: Any) -> str:
    code = pre.css_first("code")
    for node in (pre, code):
        names = (node.attributes.get("class") or "") if node is not None else ""
        if found := re.search(r"\b(?:language|lang|highlight-source)-([\w+#-]+)", names):
            return found.group(1)
    return ""


def _is_note(sup: Any) -> bool:
    """Whether the page itself says that a superscript is the mark of a note."""
    if sup.css_first("a") is not None:
        return True
    node = sup
    for _ in range(3):
        if node is None or node.tag == "body":
            return False
        given = node.attributes
        said = " ".join(str(given.get(name) or "") for name in ("class", "id", "role", "epub:type"))
        if node.tag == "a" or re.search(r"\b(?:foot|end)?note|\bfn|\bcite|\breference|noteref", said, re.I):
            return node.tag in ("a", "sup")
        node = node.parent
    return False


def _formula(math: Any) -> str:
    """MathML in one line: fractions with a slash, powers with ^, indices with _."""
    spoken = math.attributes.get("alttext")
    if spoken:
        return f" {' '.join(spoken.split())} "
    if len(list(_nodes(math))) > 2000:
        return " ".join(_text_of(math).split())
    return f" {_formula_part(math, 0)} "


def _formula_part(node: Any, depth: int) -> str:
    if node.tag == "-text":
        return " ".join((node.text_content or "").split())
    if node.tag in _DROPPED or depth > 100:
        return ""
    parts = []
    child = node.child
    while child is not None:
        if part := _formula_part(child, depth + 1):
            parts.append(part)
        child = child.next

    def grouped(part: str) -> str:
        return part if re.fullmatch(r"\w+|\(.*\)", part) else f"({part})"

    if node.tag == "mfrac" and len(parts) == 2:
        return f"{grouped(parts[0])}/{grouped(parts[1])}"
    if node.tag in ("msup", "msub") and len(parts) == 2:
        return f"{grouped(parts[0])}{'^' if node.tag == 'msup' else '_'}{grouped(parts[1])}"
    if node.tag == "msubsup" and len(parts) == 3:
        return f"{grouped(parts[0])}_{grouped(parts[1])}^{grouped(parts[2])}"
    if node.tag == "msqrt":
        return f"√({' '.join(parts)})"
    if node.tag == "mo" and parts and parts[0] not in ("(", ")", ",", "⁢", "⁡"):
        return f" {parts[0]} "
    return re.sub(r"\s+", " ", "".join(parts)).strip() if node.tag != "mo" else "".join(parts).strip("⁢⁡")


__all__ = ["IngestError", "html_to_markdown", "load_html"]
