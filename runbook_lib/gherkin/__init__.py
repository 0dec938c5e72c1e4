"""The runbook's text: how feature files become scenarios, and what is refused before anything runs."""
