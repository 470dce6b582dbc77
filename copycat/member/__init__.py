"""What one member keeps on its disk: identity, hard state, log, snapshots, markers, repair."""
