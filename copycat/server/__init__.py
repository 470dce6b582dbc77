"""The asyncio host: a member as a process, its listener, its links and its disk threads."""
