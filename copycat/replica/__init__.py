"""One member, whole and still synchronous: the core, the log and the machine, wired."""
