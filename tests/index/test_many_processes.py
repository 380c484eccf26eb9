"""Four processes read while another one writes: no error, and nobody ever sees half a batch."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from crisp_rag.index import CrispIndex, Passage, merging, verify_index

BATCH = 5
ALWAYS = 20


def writer(path: Path, encoder: Any, seconds: float) -> Any:
    """Adds, replaces and deletes whole batches, and compacts; tells how often."""

    def run(tell: Any) -> None:
        merging.MIN_DEAD_VECTORS = 100
        end, number = time.monotonic() + seconds, 0
        with CrispIndex.open(path, encoder, wait=60) as index:
            while time.monotonic() < end:
                index.add([Passage(f"{number}-{i}", f"oak pine {i}", {"batch": number}) for i in range(BATCH)])
                if number >= 10:
                    old = number - 10
                    if number % 3:
                        index.delete(where={"batch": old})
                    else:  # one batch takes another one's place in one commit
                        put = [Passage(f"{number}+{i}", "elm", {"batch": f"r{number}"}) for i in range(BATCH)]
                        index.replace([f"{old}-{i}" for i in range(BATCH)], put)
                if number % 60 == 59:
                    index.delete(where={"batch": {"$exists": True}})
                if number % 25 == 24:
                    index.compact()
                number += 1
                time.sleep(0.01)
        tell(str(number))

    return run


def reader(path: Path, encoder: Any, seconds: float, seed: int) -> Any:
    """Searches with and without filters, and opens the index anew now and then; tells how often it looked."""

    def run(tell: Any) -> None:
        end, looks = time.monotonic() + seconds, 0
        index = CrispIndex.open(path, encoder)
        while time.monotonic() < end:
            where = ({"kind": "always"}, {"batch": {"$exists": True}}, None)[(looks + seed) % 3]
            hits = index.search("oak", k=10**6, where=where)
            batches: dict[Any, int] = {}
            for hit in hits:
                if "batch" in hit.metadata:
                    batches[hit.metadata["batch"]] = batches.get(hit.metadata["batch"], 0) + 1
            assert set(batches.values()) <= {BATCH}, f"half a batch: {batches}"
            if where is None or "kind" in where:
                assert sum(hit.metadata.get("kind") == "always" for hit in hits) == ALWAYS
            assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
            assert len(index) % BATCH == 0
            looks += 1
            time.sleep(0.02)
            if looks % 20 == 0:
                index.close()
                index = CrispIndex.open(path, encoder)
        index.close()
        tell(json.dumps(looks))

    return run


@pytest.mark.parametrize("seconds", [4, pytest.param(300, marks=pytest.mark.slow)])
def test_four_readers_and_a_writer(tmp_path: Path, encoder: Any, forked: Any, seconds: int, record_property: Any) -> None:
    path = tmp_path / "index"
    with CrispIndex.create(path, encoder, indexed_fields=["batch"]) as index:
        index.add([Passage(f"always{i}", "oak fir", {"kind": "always"}) for i in range(ALWAYS)])
    started = [forked(writer(path, encoder, seconds)), *(forked(reader(path, encoder, seconds, n)) for n in range(4))]
    ended = [process.wait() for process in started]
    assert [code for code, _ in ended] == [0] * 5, "\n".join(line for code, lines in ended if code for line in lines)
    rounds, *looks = (int(lines[-1]) for _, lines in ended)
    record_property("figures", f"{rounds} rounds of writing, {looks} looks")
    print(f"{seconds} s: {rounds} rounds of writing, {looks} looks")
    assert rounds >= seconds and min(looks) >= seconds
    assert verify_index(path).sound
