"""What the drill costs, as ratios to named peers and floors, measured in one run."""
