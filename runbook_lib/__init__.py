"""The procedures of the TenSafe database runbook.

Drills and production checks run this same code; they differ by their profile alone. The rooms and their floors
are drawn in the README, and the import contract in ``pyproject.toml`` keeps them apart.
"""
