"""`copycat tune`: measures this machine and proposes settings."""
