"""The ``crisp-rag`` command: index files, search them, ask them questions, measure retrievers.

Exit codes: 0 done; 1 an error, in one sentence on stderr; 2 a wrong call; 3 ``ask`` found no answer; 4 ``index
--strict`` skipped files; 5 ``verify`` found damage; 6 ``eval --compare`` found a figure that fell.  Results go to
stdout, everything else to stderr; ``--json`` makes the results JSON.
"""

from __future__ import annotations

import os

from crisp_rag.cli import documents, showing, measuring, upkeep  # isort: skip  # noqa: F401  # the commands, in the order of --help
from crisp_rag.cli.console import app

__all__ = ["app", "main"]

app.info.help = __doc__.split("\n")[0]


def main() -> None:
    """The entry point."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    app()
