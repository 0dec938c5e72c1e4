"""What each sentence of the runbook does."""
