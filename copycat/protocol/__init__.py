"""What is said between processes, and how it looks as bytes. Sans-IO: no sockets, no clock."""
