"""The simulator: whole clusters in one process, in virtual time, from one seed.

What it is for
--------------
A bug of consensus needs a rare order of events: a vote that arrives late, a power cut between two
writes, a leader that does not know that it was deposed. The simulator makes such orders by the
thousand. It runs the shipped `Replica`, the shipped log over a disk in memory and, for some
clients, the shipped client session. Only what differs between a process and the simulator is
replaced: sockets, threads, clocks and the disk. `python -m copycat.sim --seeds N` searches fresh
seeds; `python -m copycat.sim --seed N` runs one seed again, with the same events in the same
order.

Its objects
-----------
* `world.World` holds the events that are due, ordered by virtual time, and `world.SimClock` is the
  clock of one member, which may drift and jump. `world.Trace` records what happened; its digest is
  equal for two runs of one seed.
* `options.SeedOptions` is what a seed consists of: sizes, timers, the load and the kinds of
  faults. `draws.draw_options` draws it from the number of the seed.
* `cluster.Cluster` builds everything for one seed: members, network, clients, faults, checkers.
* `host.SimHost` is one member with its processes, one after the other. It implements the same
  protocol as the asyncio host. `links.Links` are its connections to its peers, `workers.Workers`
  its threads, and `disk.SimDisk` its disk, which can lose power, fill up and rot.
* `instrumented.py` wraps the stores of a member, so that every write, sync and snapshot is
  reported to the checkers.
* `nemesis.Nemesis` injects faults; `fault_trigger.FaultTrigger` delays a fault until a member is
  in a state that lasts only a moment.
* `workload.SimClient` is a client written for the simulator, which also does what no correct
  client does; `session_client.SessionClient` drives the shipped client session.
* `model.SimMachine` is the state machine of every member, and `model.ReferenceModel` the plain
  model that it is compared with.
* `checkers/` holds the laws (see its own essay).

The loop that drives it
-----------------------
`runner.run_seed` builds the cluster, then takes one event after the other from the world. An event
is a turn of a member, a frame that arrives, a piece of work that a thread has finished, a timer or
a fault. After each event the checkers look at the member that it touched. When the time of the
seed is over, the nemesis stops and repairs everything; the cluster must then elect a leader,
answer every client and reach equal logs and states. `swarm.run_seeds` runs many seeds in several
processes, and `baseline.py` compares how often rare branches were reached with what is expected.

What it promises
----------------
A seed is a complete description: two runs of one seed on one commit are equal, record by record.
A broken law ends the seed at the event that broke it, with the trace, the options and the command
that runs it again. A case that was found stays in `tests/sim/regressions.json` with its options
written out, so it survives a change of what a seed draws.

What it never does
------------------
It never reads a real clock, sleeps, opens a socket or draws a random number outside of its seed.
It never asks a member whether the member is correct: the checkers compute what must hold from what
they saw outside of the member. It never changes the code under test to make a fault possible.

More: docs/internals/simulation.md.
"""
