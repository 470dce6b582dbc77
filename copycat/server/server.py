"""`CopycatServer`: one member of a cluster inside an application's process."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
from collections.abc import Callable, Coroutine
from functools import partial
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    Literal,
    Self,
    TypeVar,
    Unpack,
    cast,
)

from copycat.callbacks import call, check_callback
from copycat.client.cluster_connection import ClusterConnection
from copycat.config import Address, AddressLike, Duration, Storage, choice
from copycat.errors import (
    ConfigurationError,
    CopycatError,
    DirectoryRefusedError,
    IllegalMemberStateError,
    MachineMismatchError,
    require,
)
from copycat.fork_guard import ForkGuard
from copycat.listener_tasks import ListenerTasks
from copycat.listeners import Listener, Listeners
from copycat.machine.machine import StateMachine
from copycat.member.way_back import WayBackFile
from copycat.paths import real_path
from copycat.protocol.client import ClusterRequest, ClusterView
from copycat.replica.leadership_transfer import TransferOutcome
from copycat.replica.status import Status
from copycat.server.arguments import ArgumentChecker, make_machine, parse_founders
from copycat.server.cluster import Cluster
from copycat.server.cluster_events import ClusterWatch
from copycat.server.join import Join, is_member
from copycat.server.joining import Newcomer, ended_before
from copycat.server.loop_thread import LoopThread
from copycat.server.node import Node
from copycat.server.snapshot import Snapshot
from copycat.server.way_back import WayBack, record_of
from copycat.storage import Env
from copycat.tracebacks import log_error
from copycat.types import (
    Compaction,
    CompactionReport,
    MemberId,
    MemberType,
    MemberTypeLike,
    ServerState,
)

if TYPE_CHECKING:
    from copycat.client.client import CopycatClient
    from copycat.client.options import ClientSettings

__all__ = ["CopycatServer"]

log = logging.getLogger("copycat.server")

S = TypeVar("S", bound=StateMachine)
F = TypeVar("F", bound=Callable[..., Coroutine[Any, Any, Any]])


def _version() -> str:
    import copycat  # noqa: PLC0415  (the root package imports this module)

    return copycat.__version__


def _in_member_loop(method: F) -> F:
    """Decorator: run the method in the event loop of the member."""

    @functools.wraps(method)
    async def run(self: CopycatServer[Any], *args: Any, **options: Any) -> Any:
        loop_thread = self._loop_thread
        if loop_thread is None or loop_thread.is_current_thread:
            return await method(self, *args, **options)
        return await loop_thread.run(partial(method, self, *args, **options))

    return cast("F", run)


class CopycatServer(Generic[S]):
    """A member of a cluster: `async with` opens its port, `bootstrap` starts it.

    address: the address that members and clients connect to; for port 0 the system chooses one.
    state_machine: the class of the machine, or a function that returns a new machine.
    cluster_name: members and clients of another cluster are refused. name: for logs, by default
    the address. storage: a directory, or a `Storage`. bind: the address to listen on, when it is
    not `address`. election_timeout, heartbeat_interval, session_timeout: seconds, or a timedelta;
    session_timeout is the timeout of a session whose client names none.
    rejoin: whether a server whose disk was lost, or holds a copy or an older copy, comes
    back by itself as a new, passive member. False: it stops with DirectoryRefusedError.
    failure_domain: what the member fails together with, as a room or a zone. weight: where several
    members could take a place, that of the greatest weight does.
    insecure: must be True for an address outside of this machine, since TLS is not built yet.
    loop: "thread" runs the member in an event loop and a thread of its own, so that code which
    blocks the application's loop does not stop its heartbeats. Methods are called from the
    application's loop in both cases, and callbacks run there.

    One ConfigurationError names all problems with the settings.
    """

    def __init__(
        self,
        address: AddressLike = "127.0.0.1:8700",
        state_machine: Callable[[], S] | None = None,
        *,
        cluster_name: str = "copycat",
        name: str | None = None,
        storage: Storage | str | os.PathLike[str] | None = None,
        bind: AddressLike | None = None,
        election_timeout: Duration = 0.75,
        heartbeat_interval: Duration = 0.25,
        session_timeout: Duration = 5.0,
        failure_domain: str = "",
        weight: int = 0,
        insecure: bool = False,
        rejoin: bool = True,
        loop: Literal["application", "thread"] = "application",
    ) -> None:
        checked = ArgumentChecker()
        where = checked.address("address", address)
        checked.machine(state_machine)
        checked.loop(loop)
        self._storage = checked.storage(storage)
        options = self._options = checked.options(
            address=where,
            bind=where if bind is None else checked.address("bind", bind),
            cluster_name=cluster_name,
            name=str(where) if name is None else name,
            election_timeout=checked.seconds("election_timeout", election_timeout, 0.75),
            heartbeat_interval=checked.seconds("heartbeat_interval", heartbeat_interval, 0.25),
            session_timeout=checked.seconds("session_timeout", session_timeout, 5.0),
            failure_domain=failure_domain,
            weight=weight,
            insecure=insecure,
            rejoin=rejoin,
            version=_version(),
        )
        self._factory = cast("Callable[[], Any]", state_machine)
        self._guard: ForkGuard | None = None
        """Refuses a use after a fork. None before the port is opened: a fork does no harm then."""
        self._opening = asyncio.Lock()
        self._loop_thread: LoopThread | None = None
        if loop == "thread":
            self._loop_thread = LoopThread(options.name, options.election_timeout, self._is_idle)
        self._listeners: Listeners[ServerState] = Listeners(log, ListenerTasks(log).start)
        self._cluster = Cluster(options.cluster_name, self.status, self._hand_over, self._request)
        self._node: Node | None = None
        self._last_status: Status | None = None
        self._machine: StateMachine | None = None
        self._state = ServerState.INACTIVE
        self._failure: BaseException | None = None
        self._stopped: asyncio.Event | None = None
        self._close_task: asyncio.Task[None] | None = None
        self._restart_task: asyncio.Task[None] | None = None
        self._return_task: asyncio.Task[None] | None = None
        """Has the cluster add this server again, whose directory was refused (C43)."""
        self._way_back_file = WayBackFile(Env(), real_path(self._storage.directory))
        self._seeds: tuple[str, ...] = ()
        """The addresses that the running start was given."""

    # --- what it is ---------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The name of the member in logs; the address, when no name was given."""
        return self._options.name

    @property
    def address(self) -> Address:
        """The address that others connect to; port 0 is replaced when the port is opened."""
        return self._options.address

    @property
    def storage(self) -> Storage:
        """The settings of the log and its directory."""
        return self._storage

    @property
    def cluster(self) -> Cluster:
        """Leader, term and members as this member sees them."""
        return self._cluster

    @property
    def state(self) -> ServerState:
        """What this member does now: PASSIVE or RESERVE by its type, else its role. INACTIVE
        when it does not run, or is no member."""
        return self._state

    @property
    def is_running(self) -> bool:
        """True from `bootstrap` or `join` until `shutdown` or a failure.

        True, too, while it starts again without its log, because it became a reserve or was
        removed.
        """
        return self._node is not None and (self._node.replica is not None or self._is_restarting)

    @property
    def _is_restarting(self) -> bool:
        tasks = self._restart_task, self._return_task
        return any(task is not None and not task.done() for task in tasks)

    @property
    def failure(self) -> BaseException | None:
        """Why the member stopped by itself; None when it did not."""
        return self._failure

    @property
    def state_machine(self) -> S:
        """The state machine of this member. ConfigurationError before the first start.

        Change the machine by commands only: a direct call changes the state on this member alone.
        """
        if self._machine is None:
            raise ConfigurationError(
                f"{self.name} has no state machine before its first start",
                hint="await bootstrap() first",
            )
        return cast("S", self._machine)

    def status(self) -> Status:
        """Indexes, term and leader of this member now.

        From the moment when it begins to close: as they were then, and INACTIVE. Before the
        first start: zeros.
        """
        return (
            self._status() if self._loop_thread is None else self._loop_thread.call(self._status)
        )

    def _status(self) -> Status:
        if self._node is not None and self._node.replica is not None:
            return self._node.status()
        if self._last_status is not None:
            return self._last_status
        return Node.inactive_status(self._options, self._storage)

    def on_state_change(self, callback: Callable[[ServerState], object]) -> Listener:
        """Call `callback` with each new state, in the application's loop, also after a new start.

        An `async def` becomes a task of that loop; what it raises is logged.
        """
        check_callback("on_state_change", callback, "a ServerState", awaited=True)
        return self._listeners.add(callback)

    def client(self, **options: Unpack[ClientSettings]) -> CopycatClient:
        """A client that knows the members of this cluster, and is not connected yet.

        options: those of `CopycatClient`; cluster_name and insecure are this server's.
        """
        import copycat  # noqa: PLC0415  (this package must not import copycat.client)

        members = [
            str(self.address),
            *(m for m in self.status().members if m != str(self.address)),
        ]
        options.setdefault("insecure", self._options.insecure)
        options.setdefault("cluster_name", self._options.cluster_name)
        return copycat.CopycatClient(*members, **options)

    def __repr__(self) -> str:
        return f"<CopycatServer {self.name} {self._state}>"

    # --- start and stop -------------------------------------------------------------------------

    def _check_process(self) -> None:
        if self._guard is not None and self._guard.is_child:
            self._guard.check(f"server {self._options.name}")

    def _new_node(self) -> Node:
        return Node(self._options, self._storage, self._on_failure, self._on_restart)

    async def _open(self) -> Node:
        self._check_process()
        if self._node is None and self._close_task is None and not self._opening.locked():
            self._opening = asyncio.Lock()  # the old lock may belong to a loop that has ended
        async with self._opening:
            if self._close_task is not None:  # a shutdown is still under way
                await asyncio.shield(self._close_task)
            if self._node is None:
                node = self._new_node()
                try:
                    self._options = await node.listen()
                except BaseException:
                    await node.close()
                    raise
                self._guard = ForkGuard()
                self._node = node
                self._stopped = asyncio.Event()
                self._failure = None
            return self._node

    async def _open_to_start(self, members: tuple[AddressLike, ...]) -> Node:
        """The node of a start that was given these addresses, which are `_seeds` then."""
        parse_founders(members, self._options.address)  # before a port is opened
        node = await self._open()
        if node.is_taken:
            raise ConfigurationError(
                f"{self.name} is running already", hint="shutdown() it before it starts again"
            )
        self._seeds = parse_founders(members, self._options.address)
        node.is_taken = True
        return node

    @_in_member_loop
    async def bootstrap(self, *members: AddressLike) -> Self:
        """Start this member; returns when a leader is known.

        members: addresses of the founding members, with or without this one; all founding members
        are given the same list. A first start without members founds a cluster of one.
        The list is stored in the directory, so a later start may leave it out. Addresses that the
        directory does not know are also dialled then, since members may have moved meanwhile;
        only in a cluster of one is another list a ConfigurationError that names both.

        Errors: ConfigurationError, AddressInUseError, DirectoryInUseError, WrongDirectoryError,
        CorruptLogError and the other StorageErrors. After an error nothing is left open.
        """
        node = await self._open_to_start(members)
        try:
            if await self._resumed_way_back(node):
                return self
            await self._start(node, self._seeds)
            if is_member(node):
                await self._wait_for_leader()
            else:
                log.warning("%s: it is no member of its cluster: it waits to be added", self.name)
        except BaseException as error:
            # It is the member's `failure` as well, as when a running member raises it.
            if isinstance(error, MachineMismatchError):
                self._failure = error
            await self._close()
            raise
        return self

    @_in_member_loop
    async def join(
        self, *members: AddressLike, type: MemberTypeLike | Literal["inactive"] = "active"
    ) -> Self:
        """Start this member and join the cluster that `members` are in.

        Returns when this member is of the type `type`.

        members: addresses of some members, any will do; one that answers names the others.
        type: what this member is to be, "active", "passive", "reserve" or "inactive". One that is
        to be active joins as a passive member, and becomes active when it has caught up with the
        log. "inactive": the member waits until somebody adds it, as `copycat cluster add` does,
        and `join` returns at once.

        The first call needs an empty directory, in which the member stores its new id, 128 random
        bits. A later call with the same directory continues as the member that it is, whatever its
        type is by then: the stored configuration counts, not the arguments. Only if this member
        was stopped before it got the vote that it asked for, the next call asks for it again.
        If somebody else changes the member before it has its vote, `join` returns, and the member
        has the type that they gave it.

        Errors: those of `bootstrap`; MemberIdReusedError: this member was removed, and needs an
        empty directory to come back; the other ChangeRefusedErrors. After an error nothing is
        left open.
        """
        goal = choice(MemberType, type, "type")
        node = await self._open_to_start(members)
        places = [place for place in self._seeds if place != str(self._options.address)]
        connection = ClusterConnection(places, cluster_name=self._options.cluster_name)
        try:
            if not await self._resumed_way_back(node):
                await self._unless_stopped(node, self._join(node, connection, goal))
        except BaseException as error:
            if isinstance(error, MachineMismatchError):
                self._failure = error
            await self._close()
            raise
        finally:
            connection.close()
        return self

    async def _unless_stopped(self, node: Node, work: Coroutine[Any, Any, None]) -> None:
        """Run `work`. When this server fails meanwhile, or is shut down: cancel it, and raise
        that."""
        if self._stopped is not None and not await ended_before(self._stopped, work):
            raise self._failure or node.shutdown_error()

    async def _join(self, node: Node, connection: ClusterConnection, goal: MemberType) -> None:
        """Start the node as a member to be, and have the cluster add it, if it is no member."""
        join = Join(self._options, self._storage.directory, connection, goal)
        await self._start(node, (), await join.newcomer())
        is_one_now = await join.complete(node)
        await self._wait_for_restart()  # it was made a reserve meanwhile
        if is_one_now:
            await self._wait_for_leader()

    async def leave(self) -> None:
        """Have the cluster remove this member, and stop it.

        The member deletes its log and its state; a leader transfers its leadership first.
        LastVoterError: nobody else has a vote. The other errors are those of `Member.remove`;
        after an error this member continues to run.
        """
        await self._cluster.member.remove()
        await self._wait_until_deleted()
        await self.shutdown()

    @_in_member_loop
    async def _wait_until_deleted(self) -> None:
        """Wait until this member was told that it is none any more, and its directory says so; but
        not much longer than the leader's next heartbeats take."""
        if self._node is not None:
            await self._node.wait_for_end()
        await self._wait_for_restart()

    async def _start(
        self, node: Node, founders: tuple[str, ...], newcomer: Newcomer | None = None
    ) -> None:
        machine = make_machine(self._factory)
        replica = await node.start(founders, machine, newcomer, self._seeds)
        self._machine = machine
        self._call_back(partial(self._cluster.events.started, replica.members.committed))
        replica.on_cluster_change(ClusterWatch(self._cluster.events, self._call_back))
        replica.on_state_change(self._set_state)
        self._set_state(replica.status().state)

    async def _wait_for_leader(self) -> None:
        while True:
            try:
                await self._running_node().wait_for_leader()
            except (asyncio.CancelledError, IllegalMemberStateError) as error:
                if self._failure is not None:
                    raise self._failure from None
                if isinstance(error, asyncio.CancelledError) or not self._is_restarting:
                    raise
            else:
                return
            await self._wait_for_restart()  # it was made a reserve meanwhile, or was removed

    @_in_member_loop
    async def take_snapshot(self) -> Snapshot:
        """Take a snapshot of this member now, however little the log has grown.

        Returns when the snapshot was written and read back. IllegalMemberStateError: the member
        does not run, or cannot take a snapshot now. DiskFullError: there is no room; older
        snapshots stay.
        """
        return Snapshot.of(await self._running_node().take_snapshot())

    @_in_member_loop
    async def compact(self, compaction: Compaction = Compaction.MINOR) -> CompactionReport:
        """Compact this member's log now, in a thread of its own: see docs/guide/cleaning.md.

        Returns when the new files have replaced the old ones. DiskFullError: there was no room,
        and nothing has changed (F13). IllegalMemberStateError: the member does not run.
        """
        report = await self._running_node().compact(choice(Compaction, compaction, "compaction"))
        if report.failure is not None:
            raise report.failure
        return report

    def _running_node(self) -> Node:
        self._check_process()
        if self._node is None:
            raise IllegalMemberStateError(
                f"{self.name} does not run",
                hint="bootstrap() starts it; `failure` says why it stopped",
            )
        return self._node

    @_in_member_loop
    async def shutdown(self) -> None:
        """Stop the member: a leader hands over its leadership, then the log is closed cleanly.

        May be called at any time, and more than once.
        """
        self._check_process()
        if self._opening.locked():
            async with self._opening:  # wait for the node of a start that has none yet
                pass
        node = self._node
        if node is not None and self._failure is None:
            await node.hand_over()
        await self._close()

    @_in_member_loop
    async def _hand_over(self, to: MemberId) -> TransferOutcome | None:
        # One for the target to catch up, one for its election, one for a slow event loop.
        return None if self._node is None else await self._node.hand_over(to, timeouts=3)

    @_in_member_loop
    async def _request(self, message: ClusterRequest) -> ClusterView:
        while True:
            await self._wait_for_restart()
            try:
                return await self._running_node().request(message)
            except IllegalMemberStateError:
                if not self._is_restarting:
                    raise

    @_in_member_loop
    async def wait_stopped(self) -> None:
        """Wait until the member has stopped; raises its `failure`, when it stopped by itself."""
        if self._stopped is not None:
            await self._stopped.wait()
        if self._failure is not None:
            raise self._failure

    def _is_idle(self) -> bool:
        return self._node is None and self._close_task is None

    def _take_node(self) -> Node | None:
        """The node, which is to be closed: `status` is from now on what it was at this moment."""
        node, self._node = self._node, None
        if node is None or node.replica is None:
            return node
        self._remember_status(node)
        return node

    def _remember_status(self, node: Node) -> None:
        """The node ends: until another one has started, `status` is what it is now."""
        try:
            status = node.status()
        except Exception:  # the directory must be closed, whatever the member is like
            log.exception("%s: its status at the end is not known", self.name)
            return
        self._last_status = status.of_stopped()

    async def _close(self) -> None:
        if self._return_task is not None:
            self._return_task.cancel()
        if self._close_task is None and self._is_restarting:
            await self._wait_for_restart()  # which closes the node itself, and opens another one
        if self._close_task is None:
            node = self._take_node()
            if node is None:
                return
            self._close_task = asyncio.get_running_loop().create_task(self._close_node(node))
        close_task = self._close_task
        await asyncio.shield(close_task)  # a cancelled caller must not leave a half-closed member

    async def _close_node(self, node: Node) -> None:
        try:
            await node.close()
        finally:
            self._close_task = None
            self._set_state(ServerState.INACTIVE)
            require(self._stopped is not None, "a node that was never started")
            if self._stopped is not None:
                self._stopped.set()

    @_in_member_loop
    async def __aenter__(self) -> Self:
        await self._open()
        return self

    @_in_member_loop
    async def __aexit__(self, *exc: object) -> None:
        await self.shutdown()

    # --- events -------------------------------------------------------------------------------

    def _set_state(self, state: ServerState) -> None:
        if state is not self._state:
            log.info("%s: %s, was %s", self.name, state, self._state)
            self._state = state
            self._call_back(partial(self._listeners.fire, state))

    def _call_back(self, callback: Callable[[], None]) -> None:
        """Call `callback` in the application's loop."""
        if self._loop_thread is None:
            callback()
        else:
            self._loop_thread.call_back(call, callback)

    def _on_restart(self) -> None:
        """The member became a reserve, or is none any more: it starts again without its log."""
        if self._close_task is None and self._node is not None:
            self._restart_task = asyncio.create_task(self._restart(self._node))

    async def _wait_for_restart(self) -> None:
        """Wait while the member deletes its log, and continues as what it is; or while it becomes
        a member again."""
        if self._restart_task is not None:
            await asyncio.wait({self._restart_task})
        if self._return_task is not None:  # the restart has begun it
            await asyncio.wait({self._return_task})

    async def _restart(self, node: Node) -> None:
        async with self._opening:
            if self._node is not node:  # it is shut down meanwhile
                return
            self._remember_status(node)
            try:
                await node.close()
                self._node = again = self._new_node()
                await again.listen()
                await self._start(again, ())
            except Exception as cause:  # noqa: BLE001  (nobody awaits this task)
                self._on_failure(cause)

    def _on_failure(self, cause: BaseException) -> None:
        """The member stopped by itself."""
        node = self._node if self._close_task is None else None
        if node is None or not isinstance(cause, DirectoryRefusedError):
            self._fail(cause)
            return
        self._restart_task = asyncio.create_task(self._come_back(node, cause))

    def _fail(self, cause: BaseException) -> None:
        """Log the reason, and close everything."""
        self._failure = cause
        text = cause.render() if isinstance(cause, CopycatError) else repr(cause)
        log_error(log, logging.CRITICAL, cause, "%s: stopped: %s", self.name, text)
        if self._close_task is None and (node := self._take_node()) is not None:
            self._close_task = asyncio.get_running_loop().create_task(self._close_node(node))

    # --- a directory that is refused (C43) ------------------------------------------------------

    async def _come_back(self, node: Node, cause: DirectoryRefusedError) -> None:
        """The directory of the node is refused: write that down, and open the port anew."""
        async with self._opening:
            if self._node is not node:  # it is shut down meanwhile
                return
            self._remember_status(node)
            try:
                await asyncio.to_thread(self._way_back_file.write, record_of(node.status(), cause))
                await node.close()
                self._node = again = self._new_node()
                await again.listen()
                self._begin_return(again)
            except Exception as error:  # noqa: BLE001  (nobody awaits this task)
                self._fail(error)

    async def _resumed_way_back(self, node: Node) -> bool:
        """If the directory was refused before, come back; False when it was not."""
        if not await asyncio.to_thread(self._way_back_file.exists):
            return False
        self._begin_return(node)
        await self._wait_for_restart()
        await self._wait_for_leader()
        return True

    def _begin_return(self, node: Node) -> None:
        if self._return_task is not None:
            self._return_task.cancel()
        self._return_task = asyncio.create_task(self._return(node))

    async def _return(self, node: Node) -> None:
        try:
            record = await asyncio.to_thread(self._way_back_file.read)
            way_back = WayBack(self._options, self._way_back_file, record, self._seeds)
            await way_back.run(node, self._start)
        except Exception as error:  # noqa: BLE001  (nobody awaits this task)
            self._fail(error)
