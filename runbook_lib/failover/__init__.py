"""Failing over, and proving what it cost."""
