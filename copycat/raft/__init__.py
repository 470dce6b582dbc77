"""The core: `Raft.step(event) -> [effects]`. Integers in, integers out; no I/O, no clock."""
