"""The public log of one process: `Log`, its tail and its compactor."""
