"""The door to the native frames for the rooms above: they never import the extension itself."""

from __future__ import annotations

from copycat.log._native import Batch, check_commands, encode_batch, encode_gap

__all__ = ["Batch", "check_commands", "encode_batch", "encode_gap"]
