"""What the tools that change a stopped member's directory have in common: whose directory it is,
that the operator means it, and a line about each change in `audit.jsonl`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from copycat.errors import ConfigurationError, CorruptLogError
from copycat.member.identity import IDENTITY_FILES, Identity, read_identity
from copycat.member.new_cluster_file import refuse_unfinished
from copycat.member.verify import is_members

if TYPE_CHECKING:
    from copycat.storage._native import Env

__all__ = ["AUDIT_FILE", "check_name", "identity_of", "write_audit"]

AUDIT_FILE = "audit.jsonl"


def identity_of(env: Env, directory: str) -> Identity:
    """Whose directory it is. ConfigurationError when it is no member's, or when the making of a
    new cluster was interrupted in it; CorruptLogError when nothing says whose it is (F7)."""
    refuse_unfinished(env, directory)
    identity, _ = read_identity(env, directory) if env.exists(directory) else (None, ())
    if identity is None and is_members(env, directory):
        raise CorruptLogError(
            f"{directory} has no identity: it is not known whose it is (F7)",
            hint="recover cannot help: restore this directory from a backup, or add a new member",
            path=f"{directory}/{IDENTITY_FILES[0]}",
        )
    if identity is None:
        raise ConfigurationError(
            f"{directory} is no member's directory",
            hint="give the directory that the server was started with",
        )
    return identity


def check_name(actual: str, given: str) -> None:
    """ConfigurationError unless the operator names the cluster of the directory."""
    if actual != given:
        raise ConfigurationError(
            f'the member is of cluster "{actual}", not "{given}"; nothing was changed',
            hint=f"if you mean this directory, give --cluster-name {actual}",
        )


def write_audit(env: Env, directory: str, **fields: object) -> None:
    """One line more; the file is replaced whole."""
    import time  # noqa: PLC0415 - a tool of the operator, not of the log

    path = f"{directory}/{AUDIT_FILE}"
    before = env.read_file(path) if env.exists(path) else b""
    line = json.dumps({"time_ms": time.time_ns() // 1_000_000, **fields}, sort_keys=True)
    env.replace_file(path, before + line.encode() + b"\n")
