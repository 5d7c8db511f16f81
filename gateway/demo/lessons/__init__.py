"""What the demonstration model is taught: lessons made by code from a seed, and the order they come in."""
