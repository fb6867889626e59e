"""Where text comes from, and batches of it."""
