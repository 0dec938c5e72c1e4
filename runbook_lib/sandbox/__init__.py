"""The real thing on one machine, handed out as an ordinary profile."""
