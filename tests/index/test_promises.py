"""The page of promises names tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("page", ["durability.md", "forking.md"])
def test_every_test_that_the_page_names_is_there(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    file, named = "", 0
    for said in re.findall(r"`((?:tests/)?[\w/]*(?:test_\w+\.py)?(?:::test_\w+)?)`", text):
        path, _, name = said.partition("::")
        if path.endswith(".py"):
            file = path
        elif not name:
            continue
        found = ROOT / file if file.startswith("tests/") else ROOT / "tests" / "index" / file
        assert found.is_file(), said
        assert not name or f"def {name}(" in found.read_text(encoding="utf-8"), said
        named += 1
    assert named >= 3


def test_every_promise_has_a_test() -> None:
    text = (ROOT / "docs" / "durability.md").read_text(encoding="utf-8")
    promises = text.partition("## What is promised")[2].partition("## ")[0]
    said = re.split(r"^\* \*\*", promises, flags=re.MULTILINE)[1:]
    assert len(said) >= 10
    assert all("test_" in promise for promise in said), said
