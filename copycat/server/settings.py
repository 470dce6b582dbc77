"""The keyword options of `CopycatServer` as a type, for functions that pass them on."""

from __future__ import annotations

import os
from typing import Literal, TypedDict

from copycat.config import AddressLike, Duration, Storage

__all__ = ["ServerSettings"]


class ServerSettings(TypedDict, total=False):
    """The keyword options of `CopycatServer`: `def start(**options: Unpack[ServerSettings])`."""

    cluster_name: str
    name: str | None
    storage: Storage | str | os.PathLike[str] | None
    bind: AddressLike | None
    election_timeout: Duration
    heartbeat_interval: Duration
    session_timeout: Duration
    failure_domain: str
    weight: int
    insecure: bool
    rejoin: bool
    loop: Literal["application", "thread"]
