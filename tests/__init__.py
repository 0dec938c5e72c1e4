"""Proofs of runbook_lib: every detector in both directions."""
