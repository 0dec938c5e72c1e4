"""The proof that the detector detects, in both directions."""
