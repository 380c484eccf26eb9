"""What the system refuses is called what it is; only damage is damage.  An index that may only be read is searched."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crisp_rag.errors import AccessError, CrispError, IndexCorruptError, IndexLockedError
from crisp_rag.index import CrispIndex, Passage, crisp_index, verify_index

NOBODY = 65_534


@pytest.fixture
def read_only_disk(tmp_path: Path) -> Iterator[Any]:
    """A file system in memory, and a function that makes it read-only or writable again."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.name != "posix" or not shutil.which("mount"):
        pytest.skip("no mount here")

    def mount(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["mount", *options, str(disk)], capture_output=True, text=True)

    if (mounted := mount("-t", "tmpfs", "-o", "size=16m", "tmpfs")).returncode:
        pytest.skip(f"nothing can be mounted: {mounted.stderr.strip()}")

    def remount(how: str) -> Path:
        assert mount("-o", f"remount,{how}").returncode == 0
        return disk

    yield remount
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.fixture
def somebody(forked: Any) -> Any:
    """Runs a function as a user without rights; returns what it tells."""
    if os.getuid() != 0:
        pytest.skip("only root can be somebody else")

    def run(task: Any) -> list[str]:
        def as_nobody(tell: Any) -> None:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            task(tell)

        code, lines = forked(as_nobody).wait(60)
        assert code == 0, "\n".join(lines[-12:])
        return lines

    return run


@pytest.fixture
def public(tmp_path: Path) -> Iterator[Path]:
    """A folder that everybody may enter; those above it too."""
    folder = tmp_path / "public"
    folder.mkdir()
    changed = []
    for above in (folder, *folder.parents):
        mode = above.stat().st_mode
        if mode & 0o005 != 0o005:
            changed.append((above, mode))
            above.chmod(mode | 0o055)
    yield folder
    for above, mode in changed:
        above.chmod(mode)


def filled(path: Path, encoder: Any) -> Path:
    with CrispIndex.create(path, encoder, indexed_fields=["n"]) as index:
        index.add([Passage(f"p{n}", "oak pine", {"n": n % 2}) for n in range(40)])
    return path


def everything_read(path: Path, encoder: Any) -> None:
    with CrispIndex.open(path, encoder) as index:
        assert len(index.search("oak", k=100)) == len(index) == 40
        assert len(index.search("oak", k=100, where={"n": 1})) == 20
        assert len(index.get(["p3", "none"])) == 1 and len(list(index.passages())) == 40
        assert index.stats().passages == 40
        assert index.copy_to(index.path) == index.path if os.access(path, os.W_OK) else True
    assert verify_index(path).sound


def nothing_written(path: Path, encoder: Any, reason: str) -> None:
    with CrispIndex.open(path, encoder) as index:
        for write in (
            lambda: index.add_texts(["elm"]),
            lambda: index.delete(ids=["p1"]),
            lambda: index.compact(),
            lambda: index.declare(["m"]),
            lambda: index.add_stream([Passage("x", "elm")]),
        ):
            with pytest.raises(AccessError, match=reason) as caught:
                write()
            assert not isinstance(caught.value, IndexCorruptError) and "\n" not in str(caught.value)
        assert len(index.search("oak", k=100)) == 40


@pytest.mark.parametrize("whole", [True, False], ids=["small", "large"])
def test_an_index_on_a_read_only_mount_is_searched_and_says_that_it_cannot_be_written(
    read_only_disk: Any, encoder: Any, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    if not whole:
        monkeypatch.setattr(crisp_index, "CHECKED_AT_OPEN", -1)
    path = filled(read_only_disk("rw") / "a ? #%20 index", encoder)
    read_only_disk("ro")
    everything_read(path, encoder)
    nothing_written(path, encoder, "read-only")
    with pytest.raises(AccessError, match="read-only"):
        CrispIndex.create(path.parent / "new", encoder)


def test_a_snapshot_of_an_index_in_use_is_searched_with_its_log(read_only_disk: Any, encoder: Any, tmp_path: Path) -> None:
    with CrispIndex.create(tmp_path / "live", encoder) as index:
        index.add([Passage(f"p{n}", "oak pine", {"n": n % 2}) for n in range(40)])
        shutil.copytree(index.path, read_only_disk("rw") / "snapshot")
    snapshot = read_only_disk("ro") / "snapshot"
    assert (snapshot / "index.sqlite-wal").stat().st_size
    everything_read(snapshot, encoder)
    nothing_written(snapshot, encoder, "read-only")
    (read_only_disk("rw") / "snapshot" / "index.sqlite-shm").unlink()
    read_only_disk("ro")
    with pytest.raises(AccessError, match="open it once where it can be written"):
        CrispIndex.open(snapshot, encoder)


def test_another_users_index_is_searched_also_while_it_is_written(public: Path, encoder: Any, somebody: Any) -> None:
    path = filled(public / "index", encoder)
    somebody(lambda tell: everything_read(path, encoder))
    somebody(lambda tell: nothing_written(path, encoder, "rights"))
    with CrispIndex.open(path, encoder) as owner:
        owner.search("oak", where={"n": 1})
        somebody(lambda tell: everything_read(path, encoder))
    for name in ("index.sqlite-wal", "index.sqlite-shm"):
        assert not (path / name).exists()


def test_what_the_owner_writes_is_seen_by_a_reader_without_rights(
    public: Path, encoder: Any, somebody: Any, children: Any
) -> None:
    path = filled(public / "index", encoder)
    asked, written = public / "asked", public / "written"
    asked.touch(), asked.chmod(0o666)
    owner = children.start(
        path,
        f"""
        while not os.path.getsize({str(asked)!r}):
            time.sleep(.01)
        with CrispIndex.open(path, encoder) as index:
            index.add_texts(["oak"], ids=["new"])
            index.delete(ids=["p1"])
            index.compact()
        open({str(written)!r}, "w").close()
        """,
    )

    def read(tell: Any) -> None:
        with CrispIndex.open(path, encoder) as index:
            assert len(index.search("oak", k=100, where={"n": 1})) == 20
            asked.write_text("now")
            while not written.exists():  # by an owner that may fail: the test kills who waits too long
                with contextlib.suppress(IndexLockedError):
                    assert len(index.search("oak", k=100)) in (40, 41)
                time.sleep(0.01)
            found = {hit.id for hit in index.search("oak", k=100)}
            assert "new" in found and "p1" not in found and len(found) == 40
            assert len(index.search("oak", k=100, where={"n": 1})) == 19

    try:
        somebody(read)
    finally:
        asked.write_text("now")  # the owner ends in any case
        assert owner.wait(60) == 0, owner.stderr.read()


@pytest.mark.parametrize("name", ["index.sqlite", "segments", "segments/*", "acknowledged", "."])
def test_a_file_that_may_not_be_read_is_no_damage(public: Path, encoder: Any, somebody: Any, name: str) -> None:
    path = filled(public / "index", encoder)
    (file,) = path.glob(name) if name != "." else [path]
    file.chmod(0)

    def read(tell: Any) -> None:
        for use in (lambda: CrispIndex.open(path, encoder).search("oak"), lambda: verify_index(path)):
            with pytest.raises(AccessError, match="lacks the rights") as caught:
                use()
            assert str(path) in str(caught.value) and "restore" not in str(caught.value)

    somebody(read)
    file.chmod(0o755)
    everything_read(path, encoder)


def test_too_many_open_files_are_called_that(tmp_path: Path, encoder: Any, forked: Any) -> None:
    path = filled(tmp_path / "index", encoder)

    def run(tell: Any) -> None:
        names: set[str] = set()
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        for spare in range(14):
            taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(40)]
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken) + 1 + spare, most))
            try:
                with CrispIndex.open(path, encoder) as index:
                    index.search("oak", where={"n": 1})
                    index.add_texts(["oak"], ids=["p0"])
                names.add("done")
            except CrispError as error:
                assert "too many open files" in str(error), repr(error)
                names.add(type(error).__name__)
            for descriptor in taken:
                os.close(descriptor)
        assert names == {"AccessError", "done"}, names

    code, lines = forked(run).wait(60)
    assert code == 0, "\n".join(lines[-12:])
    with CrispIndex.open(path, encoder) as index:
        assert len(index) == 40
    assert verify_index(path).sound


def test_a_path_that_is_too_long_is_called_that(tmp_path: Path, encoder: Any, index: CrispIndex) -> None:
    index.add_texts(["oak"])
    long = tmp_path / ("x" * 300)
    uses = (CrispIndex.create, CrispIndex.open, lambda path, _: verify_index(path), lambda path, _: index.copy_to(path))
    for use in uses:
        with pytest.raises(AccessError, match="too long") as caught:
            use(long, encoder)
        assert len(str(caught.value)) < 500


def test_places_that_cannot_be_written_are_one_sentence(public: Path, encoder: Any, somebody: Any) -> None:
    path = filled(public / "index", encoder)

    def run(tell: Any) -> None:
        with pytest.raises(AccessError, match="lacks the rights"):
            CrispIndex.create(public / "new", encoder)
        with CrispIndex.open(path, encoder) as index, pytest.raises(AccessError, match="lacks the rights"):
            index.copy_to(public / "copy")

    somebody(run)
    (public / "file").write_text("x")
    for use in (CrispIndex.create, CrispIndex.open):
        with pytest.raises(CrispError):
            use(public / "file" / "below", encoder)


def test_figures_are_given_while_another_thread_compacts(index: CrispIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    index.add_texts(["oak"])
    from crisp_rag.index import backend
    from crisp_rag.index.sizes import bytes_of

    def gone_meanwhile(folder: Path) -> list[Path]:
        return [*folder.glob("*.*"), folder / "just gone.7bit"]

    monkeypatch.setattr(backend, "segment_files", gone_meanwhile)
    stats = index.stats()
    assert stats.passages == 1 and stats.bytes_vectors == bytes_of((index.path / "segments").iterdir())


def test_closing_gives_back_every_descriptor(tmp_path: Path, encoder: Any) -> None:
    import gc

    filled(tmp_path / "index", encoder)

    def use() -> None:
        with CrispIndex.open(tmp_path / "index", encoder) as index:
            index.search("oak", where={"n": 1})
            index.prepare()
            index.add_texts(["oak"], ids=["p1"])
            index.search("oak")

    use()
    gc.collect()
    gc.disable()
    try:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(30):
            use()
        assert len(os.listdir("/proc/self/fd")) == before
    finally:
        gc.enable()
