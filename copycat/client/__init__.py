"""Talks to any cluster; knows only the protocol room."""
