"""The real thing on one machine, handed out as an ordinary profile."""

DEFAULT_MAJOR = 17
"""The major version of PostgreSQL that a sandbox has where nobody chose another one."""
