"""What a program defines, by its syntax: classes and functions, and the lines in which they begin.

    find_definitions(text, "crane.py")[0]       # Definition("class Crane", 1, 4)

Python is parsed; in other languages a definition is a line that begins as one, and what is indented deeper belongs to it.
"""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import dataclass
from pathlib import PurePath

_WORDS = (
    "class|struct|interface|trait|enum|impl|module|namespace|object|record|protocol|extension|union|type|contract|package"
)
_FUNCTIONS = "def|func|function|fn|fun|sub|proc|procedure|macro_rules!"
_MODIFIERS = (
    r"(?:(?:export|default|public|private|protected|internal|static|abstract|final|sealed|async|override|virtual|inline|"
    r"extern|unsafe|const|open|data|case|partial|pub(?:\([\w:]+\))?|local|suspend|operator|template\s*<[^>]*>)\s+)*"
)
_NAMED = re.compile(
    rf"^(?P<indent>[ \t]*){_MODIFIERS}(?P<kind>{_WORDS}|{_FUNCTIONS})\b\*?\s*(?:\([^)]*\)\s*|<[^>]*>\s*)?(?P<name>[\w$.:]+)",
    re.I,
)
_C_FUNCTION = re.compile(
    r"^(?P<indent>[ \t]{0,8})(?!return\b|else\b|if\b|for\b|while\b|switch\b|new\b|throw\b|case\b|using\b)"
    r"(?:[\w$<>\[\],:&*~]+[ \t&*]+){1,6}(?P<name>[\w$:~]+)[ \t]*\([^;]{0,300}(?:\{|\)[^;]{0,60})$"
)
_ARROW = re.compile(
    r"^(?P<indent>[ \t]*)(?:export\s+)?(?:const|let|var)\s+(?P<name>[\w$]+)\s*=\s*(?:async\s*)?"
    r"(?:function\b|\(?[^=]{0,200}=>)"
)
_METHOD = re.compile(
    r"^(?P<indent>[ \t]+)(?:async\s+|static\s+|get\s+|set\s+)*(?!if\b|for\b|while\b|switch\b|catch\b|with\b)"
    r"(?P<name>[\w$#]+)\s*\([^()]{0,300}\)\s*\{\s*$"
)
_SQL = re.compile(
    r"^(?P<indent>\s*)create\s+(?:or\s+replace\s+)?(?:\w+\s+)?(?P<kind>table|view|function|procedure|trigger|index)\s+(?:if\s+not\s+exists\s+)?(?P<name>[\w.\"`]+)",
    re.I,
)
_SECTION = re.compile(r"^(?P<indent>\s*)\[{1,2}(?P<name>[^\[\]]{1,100})\]{1,2}\s*$")
_ABOVE = re.compile(r"\s*(?:@\w|#(?!include|define|if|endif)|//|/\*|\*|--|\[\w|;;)")
_BRACES = (".c", ".h", ".cc", ".cpp", ".hpp", ".cxx", ".java", ".cs", ".js", ".jsx", ".ts", ".tsx", ".go", ".rs", ".swift",
           ".kt", ".scala", ".php", ".dart", ".m")  # fmt: skip
_CONFIGURED = (".toml", ".ini", ".cfg", ".conf")


@dataclass(frozen=True, slots=True)
class Definition:
    """Something defined: its heading, how deep it lies from 1 on, and the line, from 0, where it or its comment begins."""

    text: str
    level: int
    line: int


def find_definitions(text: str, name: str) -> list[Definition]:
    """The definitions of a source text, in order; ``name`` tells the language by its extension."""
    suffix = PurePath(name).suffix.lower()
    if suffix in (".py", ".pyi"):
        found = _python(text)
        if found is not None:
            return found
    return _lines(text, suffix)


def _python(text: str) -> list[Definition] | None:
    """None for a text that Python cannot parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of strange escapes in it
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    lines = text.splitlines()
    found: list[Definition] = []

    def visit(body: list[ast.stmt], level: int) -> None:
        for node in body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                kind = "class" if isinstance(node, ast.ClassDef) else "def"
                first = min([node.lineno, *(each.lineno for each in node.decorator_list)]) - 1
                found.append(Definition(f"{kind} {node.name}", level, _with_comment(lines, first)))
                if isinstance(node, ast.ClassDef) and level < 6:
                    visit(node.body, level + 1)

    visit(tree.body, 1)
    return found


def _lines(text: str, suffix: str) -> list[Definition]:
    lines = text.splitlines()
    found: list[Definition] = []
    open_: list[int] = []
    for number, line in enumerate(lines):
        if len(line) > 1000 or not line.strip():
            continue
        heading = _heading(line, suffix)
        if heading is None:
            continue
        indent, said = heading
        while open_ and open_[-1] >= indent:
            open_.pop()
        if len(open_) < 3:
            # Functions within functions stay with them.
            found.append(Definition(said, len(open_) + 1, _with_comment(lines, number)))
        open_.append(indent)
    return found


def _heading(line: str, suffix: str) -> tuple[int, str] | None:
    if suffix in _CONFIGURED:
        found = _SECTION.match(line)
        return (0, found.group("name")) if found else None
    if suffix == ".sql":
        found = _SQL.match(line)
        return (0, f"{found.group('kind').lower()} {found.group('name')}") if found else None
    if found := _NAMED.match(line):
        return len(found.group("indent").expandtabs(4)), f"{found.group('kind')} {found.group('name').strip(':.')}"
    if suffix in _BRACES and (found := _ARROW.match(line) or _METHOD.match(line) or _C_FUNCTION.match(line)):
        return len(found.group("indent").expandtabs(4)), found.group("name")
    return None


def _with_comment(lines: list[str], line: int) -> int:
    """The first line of the comments and decorators right above a definition."""
    while line > 0 and _ABOVE.match(lines[line - 1]):
        line -= 1
    return line
