"""``python -m crisp_rag`` is the ``crisp-rag`` command."""

from crisp_rag.cli import main

main()
