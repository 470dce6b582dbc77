"""The laws that every simulated history must hold."""
