"""`copycat log`: looking into a log directory, offline."""
