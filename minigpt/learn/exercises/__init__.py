"""The exercises, a file for each subject."""
