"""The demo: three members, a load, kills, and the proof that nothing was lost."""
