"""From files to passages (:mod:`.ingest`) and from a question to a cited answer (:mod:`.answer`)."""
