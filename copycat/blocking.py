"""`from copycat.blocking import CopycatClient`: the client for code without an event loop."""

from __future__ import annotations

from copycat.client.blocking import CopycatClient, connect

__all__ = ["CopycatClient", "connect"]
