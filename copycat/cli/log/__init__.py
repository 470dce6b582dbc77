"""`copycat log`: commands that read the directory of a log or a member, and change nothing."""
