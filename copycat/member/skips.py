"""Entries at which the operator had the user's code left out: recorded in the member's directory.

One line: a checksum, then JSON with the cluster's name and, for each entry, its index, its term
and the checksum of its frame. See docs/decisions/0022.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from copycat.errors import CorruptLogError, WrongDirectoryError
from copycat.storage._native import crc32c
from copycat.types import SkippedEntry

if TYPE_CHECKING:
    from copycat.storage._native import Env

__all__ = ["SKIPS_FILE", "SKIPS_MAX", "read_skips", "skips_of", "write_skips"]

SKIPS_FILE = "skipped-entries"
SKIPS_MAX = 64
"""All of them are said in a handshake, which takes little from a stranger."""


def read_skips(env: Env, directory: str, cluster_name: str) -> tuple[SkippedEntry, ...]:
    """By index; empty when nothing was recorded.

    CorruptLogError for a file that is not whole: a member that forgot a skip would call the
    code that the others do not. WrongDirectoryError for another cluster's.
    """
    path = f"{directory}/{SKIPS_FILE}"
    if not env.exists(path):
        return ()
    checksum, _, text = env.read_file(path).rstrip(b"\n").partition(b" ")
    if checksum != b"%08x" % crc32c(text):
        raise CorruptLogError(
            f"{path}: its checksum does not fit",
            hint="copy the file from another member of the cluster",
            path=path,
        )
    document = json.loads(text)
    owner = document["cluster"]
    if owner != cluster_name:
        raise WrongDirectoryError(
            f"{path} belongs to cluster {owner}, but this process to cluster {cluster_name}",
            path=path,
            field="cluster_name",
            expected=cluster_name,
            actual=owner,
        )
    return tuple(SkippedEntry(*one) for one in document["entries"])


def skips_of(env: Env, directory: str) -> tuple[SkippedEntry, ...]:
    """For tools: what the member of `directory` skips, whose cluster it is; nothing of a bare
    log's. What `read_identity` and `read_skips` raise."""
    if not env.exists(f"{directory}/{SKIPS_FILE}"):
        return ()
    from copycat.member.identity import read_identity  # noqa: PLC0415 - msgspec

    identity, _ = read_identity(env, directory)
    return () if identity is None else read_skips(env, directory, identity.cluster_name)


def write_skips(
    env: Env, directory: str, cluster_name: str, skips: tuple[SkippedEntry, ...]
) -> None:
    """Durable when it returns, whole or not at all."""
    document = {"cluster": cluster_name, "entries": sorted(skips)}
    text = json.dumps(document, sort_keys=True).encode()
    env.replace_file(f"{directory}/{SKIPS_FILE}", b"%08x %b\n" % (crc32c(text), text))
