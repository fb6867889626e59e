"""Choosing the next token, over and over; works on token ids only."""
