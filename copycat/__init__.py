"""copycat: a durable log and a replicated state machine you import."""
