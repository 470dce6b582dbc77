"""The keyword options of a server, for those who pass them on."""

from __future__ import annotations

import os
from typing import Literal, TypedDict

from copycat.config import AddressLike, Duration, Storage
from copycat.types import MemberTypeLike

__all__ = ["ServerSettings"]


class ServerSettings(TypedDict, total=False):
    """What `CopycatServer` takes by keyword: `def start(**options: Unpack[ServerSettings])`."""

    cluster_name: str
    name: str | None
    type: MemberTypeLike
    storage: Storage | str | os.PathLike[str] | None
    client_address: AddressLike | None
    bind: AddressLike | None
    election_timeout: Duration
    heartbeat_interval: Duration
    session_timeout: Duration
    global_suspend_timeout: Duration
    tls: object
    insecure: bool
    config: object
    loop: Literal["application", "thread"]
