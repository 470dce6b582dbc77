"""Whole clusters in virtual time from one seed, running the shipped replica."""
