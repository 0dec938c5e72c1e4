"""Getting it back."""
