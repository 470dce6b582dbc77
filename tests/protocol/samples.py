"""One or more of every message, for golden bytes and round trips."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from copycat.protocol import client, feeding, peer
from copycat.protocol.codec_client import (
    decode_client,
    decode_commands,
    decode_results_frame,
    decode_server,
    encode_client,
    encode_server,
)
from copycat.protocol.codec_feeding import (
    decode_fed_entries,
    decode_fed_snapshot,
    decode_feed_answer,
    decode_feed_request,
    encode_fed_entries,
    encode_fed_snapshot,
    encode_feed_answer,
    encode_feed_request,
)
from copycat.protocol.codec_hello import (
    decode_hello,
    decode_hello_refused,
    encode_hello,
    encode_hello_refused,
)
from copycat.protocol.codec_peer import (
    decode_append,
    decode_forward,
    decode_install,
    decode_peer,
    decode_return,
    encode_append,
    encode_forward,
    encode_install,
    encode_peer,
    encode_return,
)
from copycat.protocol.framing import Frame
from copycat.protocol.member_record import (
    ConfigurationRecord,
    DirectoryStart,
    HealingPolicy,
    MemberRecord,
)
from copycat.types import (
    ChangeKind,
    ChangeRefusal,
    ConsistencyLevel,
    EntryId,
    MemberId,
    MemberType,
    ServerState,
    SkippedEntry,
    Span,
)

__all__ = ["CLIENTS", "DECODERS", "PEERS", "SERVERS", "encoded"]

BODY = bytes.fromhex("02000000 03000000".replace(" ", "")) + b"abcde"

HELLO = peer.Hello(
    "orders", ("127.0.0.1:8700", "b:1"), MemberId((1 << 127) + 7), 99, "b:1", True, (1, 5)
)
SKIPPING = peer.Hello(
    "orders",
    ("127.0.0.1:8700", "b:1"),
    MemberId((1 << 127) + 7),
    99,
    "b:1",
    False,
    (1, 5),
    skips=(SkippedEntry(17, 2, 0xDEADBEEF), SkippedEntry(18, 2, 1)),
)
KNOWN = msgspec.structs.replace(SKIPPING, cluster_incarnation=(1 << 120) + 3)
STARTED = msgspec.structs.replace(
    KNOWN, starts=(DirectoryStart(6, 1 << 63), DirectoryStart(9, 12))
)
REFUSED = peer.HelloRefused("bad-config", "another list", is_final=True, leader="a:1")
LEADER = MemberId((1 << 127) + 9)
APPEND = peer.AppendEntries(
    7,
    LEADER,
    42,
    EntryId(6, 10),
    Span(7, 11, 13),
    9,
    5,
    EntryId(4, 3),
    1_767_225_600_000,
    MemberType.PASSIVE,
    3,
    MemberId((1 << 126) + 6),
)
INSTALL = peer.InstallSnapshot(7, LEADER, 44, EntryId(6, 10), 4096, bytes(range(32)), 1024)

PEERS: list[peer.PeerMessage] = [
    peer.AppendEntries(7, LEADER, 43, EntryId(7, 12), Span(7, 13, 13), 12),
    peer.AppendReply(7, 42, True, 12, EntryId(0, 0), 11),
    peer.AppendReply(7, 42, False, 0, EntryId(5, 8)),
    peer.AppendReply(7, 42, False, 0, EntryId(5, 8), wants_snapshot=True),
    peer.AppendReply(7, 42, True, 12, EntryId(0, 0), 11, storage_full=True),
    peer.AppendReply(7, 42, False, 0, EntryId(5, 8), wants_snapshot=True, storage_full=True),
    peer.AppendReply(7, 42, True, 12, EntryId(0, 0), 11, is_replaying=True),
    peer.PreVote(8, 3, EntryId(7, 12)),
    peer.PreVoteReply(7, 3, True, 1_767_225_600_000, 1_767_225_599_000, 6),
    peer.RequestVote(8, EntryId(7, 12), False),
    peer.RequestVote(8, EntryId(7, 12), True),
    peer.VoteReply(8, False, 1_767_225_600_000, 1_767_225_599_000, 6),
    peer.TimeoutNow(8),
    peer.InstallSnapshot(7, LEADER, 44, EntryId(6, 10), 4096, bytes(range(32)), 0),
    peer.InstallReply(7, 44, EntryId(6, 10), 1024, False),
    peer.InstallReply(7, 44, EntryId(6, 10), 4096, True),
    peer.LogPosition(0, EntryId(0, 0)),
    peer.LogPosition(7, EntryId(6, 10)),
    peer.LogRegressed(7, EntryId(6, 12)),
    peer.LogRegressed(7, EntryId(6, 12), is_final=True),
    peer.AppendReply(7, 42, True, 12, EntryId(0, 0), 11, configuration=EntryId(4, 3)),
    peer.AppendReply(7, 42, False, 0, EntryId(5, 8), last=EntryId(6, 14), commit_index=9),
    peer.ConfigurationNotice(
        7,
        LEADER,
        ConfigurationRecord(
            EntryId(4, 3),
            (1 << 120) + 3,
            (
                MemberRecord(LEADER, MemberType.ACTIVE, "a:1"),
                MemberRecord(MemberId(5), MemberType.PASSIVE, "b:1", 3, is_promotable=True),
            ),
        ),
    ),
]
PEERS.append(peer.AppendReply(7, 42, True, 12, EntryId(0, 0), 11, left_feeder=LEADER))
FED = feeding.FedEntries(7, 3, 2, EntryId(6, 10), Span(7, 11, 13), 14)
FED_SNAPSHOT = feeding.FedSnapshot(7, 3, 2, EntryId(6, 10), 4096, bytes(range(32)), 1024)
FEED_REQUESTS = [
    feeding.FeedRequest(
        feeding.FeedRequestKind.ENTRIES, 3, 2, EntryId(6, 10), EntryId(4, 3), 3, True, True
    ),
    feeding.FeedRequest(
        feeding.FeedRequestKind.SNAPSHOT,
        3,
        4,
        EntryId(0, 0),
        EntryId(4, 3),
        3,
        False,
        min_index=9,
        snapshot=EntryId(6, 10),
        offset=1024,
    ),
]
FEED_ANSWERS = [
    feeding.FeedAnswer(7, 3, 2, kind, EntryId(6, 10)) for kind in feeding.FeedAnswerKind
]
JOINER = MemberId((1 << 126) + 5)
MEMBERS = (
    client.MemberView(LEADER, MemberType.ACTIVE, "a:1", match_index=41),
    client.MemberView(
        JOINER,
        MemberType.PASSIVE,
        "d:1",
        40,
        is_promotable=True,
        is_reachable=False,
        match_index=12,
        is_available=False,
        replaces=LEADER,
        is_slow=True,
        is_demoted=True,
        failure_domain="x",
        weight=-5,
    ),
)
VIEW = client.ClusterView(
    request=8,
    member=LEADER,
    state=ServerState.LEADER,
    term=3,
    leader=LEADER,
    entry=EntryId(3, 40),
    first_index=1,
    last_index=42,
    commit_index=41,
    last_applied=40,
    applied_time_ms=1_767_225_600_000,
    sessions=2,
    storage_full=False,
    incarnation=(1 << 125) + 1,
    cluster="orders",
    version="0.1.0",
    durability="fsync",
    members=MEMBERS,
    feeder=JOINER,
    obstacles="b:1 misses entries 5 to 9",
)
CLIENTS: list[client.ClientMessage] = [
    client.Register(1, "client-ü", 5000),
    client.KeepAlive(2, 17, 400),
    client.CloseSession(3, 17),
    client.Commands(17, 401, 400, 2, BODY),
    client.QueryRequest(4, 17, 402, 900, ConsistencyLevel.LINEARIZABLE, b"op"),
    client.QueryRequest(5, 17, 402, 900, ConsistencyLevel.SEQUENTIAL, b""),
    client.QueryRequest(5, 17, 0, 0, ConsistencyLevel.LINEARIZABLE, b"x"),
    client.Register(6, "me", 5000, "orders", 1 << 63),
    client.KeepAlive(7, 17, 400, "orders"),
    client.Register(6, "me", 5000, "orders", 1, (1 << 128) - 2),
    client.KeepAlive(7, 17, 400, "orders", 1 << 127),
    client.ViewRequest(8, "orders", True),
    client.ViewRequest(8),
    client.ChangeRequest(
        9, ChangeKind.ADD, JOINER, MemberType.PASSIVE, EntryId(3, 40), "d:1", "orders"
    ),
    client.ChangeRequest(
        11,
        ChangeKind.POLICY,
        MemberId(0),
        MemberType.INACTIVE,
        EntryId(3, 40),
        policy=HealingPolicy(3, 1, 30_000, 10_000, 3_600_000, is_on=True),
    ),
    client.ChangeRequest(10, ChangeKind.REMOVE, JOINER, MemberType.INACTIVE, EntryId(0, 0)),
    client.TransferRequest(11, LEADER, "orders"),
    client.TransferRequest(12, MemberId(0)),
]
SERVERS: list[client.ServerMessage] = [
    client.Registered(1, 17, 5000, "a:1", ("a:1", "b:1")),
    client.KeptAlive(2, "", ()),
    client.SessionClosed(3),
    client.Results(17, 401, 2, 1000, 1001, b"\x92\x01\x02"),
    client.CommandsRefused(17, 401, client.Refusal.OVERLOADED, "a:1"),
    client.QueryResult(4, 1001, b"\xc0"),
    client.Failure(5, client.Refusal.NO_LEADER, "", "an election is under way"),
    client.CommandsRefused(
        17, 401, client.Refusal.NO_QUORUM, "", "1 of 3 members reachable", ("b:1", "c:1"), 12_400
    ),
    client.Registered(6, 17, 5000, "a:1", ("a:1",), "orders"),
    client.Registered(6, 17, 5000, "a:1", ("a:1",), "orders", 1 << 127),
    client.KeptAlive(7, "a:1", ("a:1",), (1 << 128) - 2),
    client.Failure(6, client.Refusal.NO_QUORUM, "", "alone", ("b:1",), 1_000),
    VIEW,
    msgspec.structs.replace(VIEW, members=(), storage_full=True),
    client.ChangeRefused(
        9,
        ChangeRefusal.NO_MAJORITY,
        EntryId(3, 40),
        "a:1",
        "a majority would need c:1",
        ("c:1",),
        MEMBERS,
    ),
    client.ChangeRefused(9, ChangeRefusal.NOT_LEADER, EntryId(0, 0), "", "nobody leads"),
]


def encoded() -> dict[str, bytes]:
    """A name and the bytes on the wire of every sample."""
    frames = {
        "hello": encode_hello(HELLO),
        "hello-skipping": encode_hello(SKIPPING),
        "hello-known": encode_hello(KNOWN),
        "hello-refused": encode_hello_refused(REFUSED),
        "append": encode_append(APPEND, 5) + b"12345",
        "install": encode_install(INSTALL, 5) + b"12345",
        "fed": encode_fed_entries(FED, 5) + b"12345",
        "fed-snapshot": encode_fed_snapshot(FED_SNAPSHOT, 5) + b"12345",
        "forward": encode_forward(5, frame_of(encode_client(CLIENTS[1]))),
        "return": encode_return(5, encode_server(SERVERS[2])),
    }
    groups: list[tuple[list[Any], Callable[[Any], bytes]]] = [
        (list(PEERS), encode_peer),
        (FEED_REQUESTS, encode_feed_request),
        (FEED_ANSWERS, encode_feed_answer),
        (list(CLIENTS), encode_client),
        (list(SERVERS), encode_server),
    ]
    for samples, encode in groups:
        for number, sample in enumerate(samples):
            frames[f"{type(sample).__name__}-{number}"] = encode(sample)
    return frames


def frame_of(data: bytes) -> Frame:
    """The frame in `data`, by hand: this must not lean on what is tested."""
    return Frame(data[4], data[5], memoryview(data)[8:])


DECODERS: list[Callable[[Frame], object]] = [
    decode_hello,
    decode_hello_refused,
    decode_append,
    decode_install,
    decode_fed_entries,
    decode_fed_snapshot,
    decode_feed_answer,
    decode_feed_request,
    decode_peer,
    decode_forward,
    decode_return,
    decode_client,
    decode_commands,
    decode_server,
    decode_results_frame,
]
