"""The client: submits operations to a cluster, and gives each caller the result of its operation.

What it is for
--------------
An application calls `CopycatClient.submit` and awaits a result. Between the two the leader may
change, connections may break, and frames may be lost or arrive twice. The client numbers each
command, sends it again until it is answered, and completes the futures in the order in which the
operations were submitted. It uses `copycat.protocol`, and neither logs, elections nor storage.

Its objects
-----------
* `CopycatClient` (`client.py`) is the public class for asyncio. `blocking.CopycatClient` is the
  one for programs without an event loop; `engine.Engine` runs it in a thread of its own.
* `SessionDriver` (`driver.py`) uses the loop, the clock and the sockets. It connects to one server
  after another, and passes messages between the `Connection` and the session.
* `ClientSession` (`session.py`, with `Submissions`) is the state of one session, without any I/O:
  what to send next, and what an answer means.
* `Outbox` (`outbox.py`) stores the encoded commands that are not answered. It knows four
  sequences: the last one that was submitted, ever sent, sent on this connection, and answered.
* `Completion` (`completion.py`) completes the futures in order: a result that arrives early waits.
* `Queries` (`queries.py`) are the queries that wait, each with its place between the commands.
* `ServerSelector` (`server_selector.py`) names the server to try next, and how long to wait first.
* `Unavailability` (`unavailability.py`) is the reason that servers gave for not serving the
  session; the errors that callers get name it.

The loop that drives it
-----------------------
    address, delay = selector.next()       # which server, and how long to wait before
    connection = open(address)             # register once, then continue with the same session
    frames = session.outgoing(now_ms)      # commands, queries and a keep-alive that are due
    session.received(message, now_ms)      # an answer: its commands are deleted from the outbox
    finished = session.take_finished()     # futures to complete, in the order of submission

In a turn of the loop one frame is sent with all commands that were submitted in that turn. When a
connection breaks, all commands that are not answered are sent again on the next one.

What it promises
----------------
* A command takes effect at most once while its session is open (C18), and its caller gets the
  result of that one execution.
* Futures complete in the order of submission; a query sees every command that was submitted before
  the query.
* An error says what is known: `outcome_unknown` is true for a command that was sent and not
  answered, and false for one that cannot have taken effect.
* Waiting is bounded: by the caller's timeout, by the number and the bytes of commands that may
  wait, and by `give_up_after` while no session is open.

What it never does
------------------
It never repeats a command under another session: when a session has expired, what was sent and
not answered fails with `SessionExpiredError`, which lists it, and the application decides. It
never acknowledges a reply that has not arrived. It never guesses the leader: servers name it.

Begin with `ClientSession.outgoing` and `ClientSession.received`; docs/internals/sessions.md
explains what the cluster does with their messages.
"""
