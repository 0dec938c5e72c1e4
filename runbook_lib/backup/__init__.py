"""What is kept, and the proof of it."""
