"""One training run, from a configuration and a text to a run folder."""
