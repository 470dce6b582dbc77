"""The asyncio host: one member of a cluster inside an application's process.

What it is for
--------------
`copycat/replica/` contains a whole member as synchronous code without a clock, a socket or a
thread. This package gives that code what it needs to run in a real process, and gives the
application one public class, `CopycatServer`.

Its objects
-----------
* `server.CopycatServer` is the public class: it checks the settings, and starts and stops a `Node`
  as often as the application asks for it. `arguments.py` checks its arguments, and
  `settings.ServerSettings` has the types of its keyword options. `cluster.Cluster` is what its
  property `cluster` returns: leader, term and members.
* `node.Node` is one start: port, directory, replica, links and logging, from `start` to `close`.
  What was opened is closed in reverse order, at whatever stage a start fails.
* `startup.build` opens the directory and makes the replica, in a thread, so that the application's
  loop continues while a large log is read. `loaded_machine.py` installs the newest snapshot.
* `host.AsyncHost` implements `copycat.replica.host.Host`: it schedules turns, keeps the timer, and
  hands work to the threads of `workers.py`.
* `listener.Listener` accepts connections on the one port for members and clients. The first frame
  of a connection says which of the two it is. `peer_link.Link` is the outgoing connection to one
  peer, dialled again whenever it breaks. Sockets themselves are the subject of `copycat/net.py`.
* `progress_timeout.ProgressTimeout` decides when a client that reads or sends nothing is
  disconnected, and `refusal_log.RefusalLog` keeps a repeated refusal from filling the log.
* `status_log.StatusLog` logs who leads, when the quorum is lost and when it is back;
  `loop_lag.LoopLag` logs an event loop that was blocked.
* `loop_thread.LoopThread` runs a member in an event loop of its own (`loop="thread"`).

The loop that drives it
-----------------------
A frame, a finished piece of work or a timer calls the replica, which only queues the event and
asks the host for a turn. One pass of the event loop later the host takes the turn: the replica
handles everything that has arrived, and puts the frames that it sends into write buffers; the host
then writes the buffers and sets the timer for the replica's next deadline. Threads return their
results through one mailbox, so a result is handled in a turn as well. A sync runs in the loop
itself while the disk is quick, since two switches between threads would take longer than the sync.

What it promises
----------------
The loop thread alone touches the replica and changes the structure of the log. A frame that
depends on a durable vote or entry leaves only after the disk has it. A peer or a client that
breaks the protocol loses its own connection and disturbs nobody else. When a failure leaves the
member unsure of its own state, the member stops, gives the reason (`CopycatServer.failure`), and
acknowledges nothing more.

What it never does
------------------
It never decides anything about consensus, sessions or the log: the replica does. It never calls
the user's state machine in the event loop. After a sync has failed, it never syncs the same bytes
again. It never opens a directory that another process has open.
"""
