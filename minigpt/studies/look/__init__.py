"""The views of `minigpt look`."""
