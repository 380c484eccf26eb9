"""Where an encoder lies on this machine: nobody is asked for it."""

from __future__ import annotations

from pathlib import Path


def on_this_machine(source: str) -> str:
    """The folder of an encoder: itself, or what an earlier download left in the cache of the hub.

    Raises:
        Exception: whatever the hub's library says where it has none.
    """
    if Path(source).exists():
        return source
    from huggingface_hub import snapshot_download

    # Loading by name would look the name up at the hub, even where no file may be fetched.
    return str(snapshot_download(source, local_files_only=True))
