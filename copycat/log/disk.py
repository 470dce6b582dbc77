"""The door to the disks for the rooms above: they never import the extension itself."""

from __future__ import annotations

from copycat.log._native import Env, FaultEnv

__all__ = ["Env", "FaultEnv"]
