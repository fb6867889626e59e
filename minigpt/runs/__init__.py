"""A run on disk, and a run opened."""
