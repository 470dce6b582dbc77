"""`copycat cluster`: shows the members of a running cluster, and changes them."""
