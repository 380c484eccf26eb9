"""The corpus of small files: every expected string is found, in passages too, and nothing is lost beside damaged files."""

from __future__ import annotations

import importlib.util
import random
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from crisp_rag.errors import CrispError
from crisp_rag.pipelines.loading import Limits, SafeReader, parse_file
from crisp_rag.pipelines.splitting import PassageSplitter

SOURCE = Path(__file__).resolve().parents[2] / "benchmarks" / "file_corpus.py"


def load_corpus():
    spec = importlib.util.spec_from_file_location("file_corpus", SOURCE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["file_corpus"] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module.corpus()


CORPUS = load_corpus()


@pytest.fixture(scope="session")
def tokenizer():
    from transformers import AutoTokenizer

    from crisp_rag.models.encoder import default_backbone

    return AutoTokenizer.from_pretrained(str(default_backbone()))


def test_there_are_sixty_files_or_more_and_five_or_more_of_each_kind():
    assert len(CORPUS) >= 60 and min(Counter(file.kind for file in CORPUS).values()) >= 5


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.name)
def test_every_expected_string_is_found(file, tokenizer):
    document = parse_file(f"/docs/{file.name}", file.data)
    documents = (document, *document.members)
    text = " ".join(" ".join(each.text for each in documents).split())
    assert [string for string in file.expected if string not in text] == []
    assert [string for string in file.forbidden if string in text] == []
    passages = [passage for each in documents for passage in PassageSplitter(tokenizer).split(each)]
    found = " ".join(" ".join(passage.text for passage in passages).split())
    assert [string for string in file.expected if string not in found] == []


MUTATIONS = 1000
SECONDS = 10.0


def mutated(data: bytes, others: list[bytes], random_: random.Random) -> bytes:
    """Bytes as a broken disk, a cut transfer or a clumsy program leaves them."""
    changed = bytearray(data)
    for _ in range(random_.choice((1, 1, 2, 5, 20))):
        kind = random_.randrange(7)
        place = random_.randrange(len(changed) + 1)
        length = random_.choice((1, 2, 4, 16, 200))
        if kind == 0 and changed:
            changed[place % len(changed)] = random_.randrange(256)
        elif kind == 1:
            del changed[place : place + length]
        elif kind == 2:
            changed[place:place] = random_.randbytes(length)
        elif kind == 3:
            changed[place:place] = changed[place : place + length] * random_.choice((1, 3, 50))
        elif kind == 4 and random_.random() < 0.2:
            del changed[place:]
        elif kind == 5:
            changed[place:place] = random_.choice(
                (b"<", b">", b"&", b'"', b"\0", b"\xff\xfe", b"-1", b"99999999999", b"{", b"[", b"\n")
            )
        elif kind == 6:
            other = random_.choice(others)
            start = random_.randrange(len(other) + 1)
            changed[place:place] = other[start : start + length]
    return bytes(changed)


def repacked(data: bytes, others: list[bytes], random_: random.Random) -> bytes:
    """A package with one of its members broken, so that the damage gets past the ZIP format's own checks."""
    import io
    import zipfile

    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as package, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as copy:
        names = package.namelist()
        chosen = random_.choice(names)
        for name in names:
            content = package.read(name)
            copy.writestr(name, mutated(content, others, random_) if name == chosen else content)
    return out.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted({file.kind for file in CORPUS}))
def test_of_a_thousand_damaged_files_none_raises_hangs_or_loses_another(kind):
    random_ = random.Random(f"files-{kind}")
    own = [file for file in CORPUS if file.kind == kind]
    others = [file.data for file in own]
    read = refused = 0
    with SafeReader(Limits(seconds=SECONDS)) as reader:
        for number in range(MUTATIONS):
            file = random_.choice(own)
            packed = file.data.startswith(b"PK") and random_.random() < 0.7
            data = (repacked if packed else mutated)(file.data, others, random_)
            began = time.monotonic()
            try:
                document = reader.parse(f"/docs/{file.name}", data)
                read += 1
                for each in (document, *document.members):
                    each.text.encode("utf-8")
            except CrispError as error:
                refused += 1
                assert "Traceback" not in str(error) and "\n" not in str(error)
            assert time.monotonic() - began < SECONDS + 30
            if number % 100 == 0:
                good = reader.parse(f"/docs/{own[0].name}", own[0].data)
                assert good == parse_file(f"/docs/{own[0].name}", own[0].data)
    assert read + refused == MUTATIONS
