"""The door to the watch over refused allocations: rooms above never import the extension.

See docs/decisions/0022: it tells an absurd request from a shortage of this machine.
"""

from __future__ import annotations

from copycat.log._native import allocation_refusals, watch_allocations

__all__ = ["allocation_refusals", "watch_allocations"]
