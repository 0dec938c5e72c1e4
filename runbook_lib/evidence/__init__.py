"""What is told of a run: to the terminal while it goes, and in ``reports/`` afterwards. It never changes a verdict."""
