"""The client: submits operations to a cluster, and gives each caller the one true outcome.

What it is for
--------------
An application calls `CopycatClient.submit` and awaits a result. Between the two the leader may
change, connections may break, and frames may be lost or arrive twice. The client numbers each
command, sends it again until it is answered, and completes the callers in the order in which
they submitted. It knows `copycat.protocol` and nothing of logs, elections or storage.

Its objects
-----------
* `CopycatClient` (`client.py`) is the public face for asyncio; `blocking.py` and `engine.py` are
  the same for programs without an event loop, in a thread of their own.
* `SessionDriver` (`driver.py`) has the loop, the clock and the sockets. It connects to one server
  after another and moves bytes between the connection and the session.
* `ClientSession` (`session.py`, with `Submissions`) is the state of one session, without any I/O:
  what to send next, and what an answer means.
* `Outbox` (`outbox.py`) holds the encoded commands that are not answered. It counts in sequences:
  submitted, attempted (ever sent), sent on this connection, answered.
* `Completion` (`completion.py`) is the order of callers: a result that is early waits there.
* `Queries` (`queries.py`) are the reads that wait, each with its place between the commands.
* `ServerSelector` (`server_selector.py`) names the server to try next, and how long to wait first.
* `Unavailability` (`unavailability.py`) is the reason that servers gave for not serving the
  session; the errors that callers get name it.

The loop that drives it
-----------------------
    address, delay = selector.next()       # which server, and how long to wait before
    connection = open(address)             # register once, then go on with the same session
    frames = session.outgoing(now_ms)      # commands, queries and a keep-alive that are due
    session.received(message, now_ms)      # an answer: the outbox shrinks, callers complete
    finished = session.take_finished()     # futures to set, in the order of submission

One frame of commands leaves in a turn of the loop, whatever was submitted in that turn. When a
connection breaks, the next one sends everything after the last answered command again.

What it promises
----------------
* A command takes effect at most once while its session lives (C18), and its caller hears the
  result of that one time.
* Callers complete strictly in the order of submission; a query sees every command before it.
* An error says what is known: `outcome_unknown` is true for a command that was sent and never
  answered, and false for one that cannot have taken effect.
* Waiting is bounded: by the caller's timeout, by the number and the bytes of commands that may
  wait, and by `give_up_after` while no session is open.

What it never does
------------------
It never repeats a command under another session: when a session has expired, what was sent and
not answered fails with `SessionExpiredError`, which lists it, and the application decides. It
never acknowledges a reply that it did not get. It never guesses the leader: servers name it.

Begin with `ClientSession.outgoing` and `ClientSession.received`; docs/internals/sessions.md tells
what the cluster does with both.
"""
