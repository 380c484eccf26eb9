"""Archives: the files in a .zip, each read by itself and within the limits of any file."""

from __future__ import annotations

from pathlib import PurePosixPath

from crisp_rag.errors import IngestError
from crisp_rag.pipelines.loading.document import Extracted, Skipped
from crisp_rag.pipelines.loading.packed import open_package, read_member


def load_zip(path: object, data: bytes) -> Extracted:
    """A .zip file; names that begin with a dot are passed over, as in folders."""
    from crisp_rag.pipelines.loading.registry import supports

    package = open_package(path, data, "a ZIP archive")
    members: list[tuple[str, bytes]] = []
    skipped: list[Skipped] = []
    for info in sorted(package.infolist(), key=lambda info: info.filename):
        parts = [part for part in PurePosixPath(info.filename.replace("\\", "/")).parts if part not in ("/", "..", ".")]
        name = "/".join(parts)
        if info.is_dir() or not parts or any(part.startswith(".") or part == "__MACOSX" for part in parts):
            continue
        if not supports(name):
            skipped.append(Skipped(name, "a file of an unsupported kind"))
            continue
        try:
            members.append((name, read_member(path, package, info)))
        except IngestError as error:
            skipped.append(Skipped(name, str(error)))
    return Extracted("", "plain", members=tuple(members), skipped=tuple(skipped))
