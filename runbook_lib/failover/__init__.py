"""Failing over: what a cluster is, and what happens to those who write while it moves."""
