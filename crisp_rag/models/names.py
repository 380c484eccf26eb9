"""The encoders that install with crisp-rag, by name; nothing here imports torch."""

from __future__ import annotations

from pathlib import Path

DEFAULT_ENCODER_NAME = "crisp-small"
LIGHT_ENCODER_NAME = "crisp-minilm"
"""Half the layers, and the default of earlier versions."""
POSTHOC_ENCODER_NAME = "minilm-posthoc-8x32"
SHIPPED = {name: Path(__file__).parent / name.replace("-", "_") for name in (DEFAULT_ENCODER_NAME, LIGHT_ENCODER_NAME)}
"""Folders of the encoders that install with crisp-rag."""
