"""Continuous archiving, and the proof of it."""
