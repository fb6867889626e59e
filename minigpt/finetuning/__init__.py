"""Teaching a trained model something more: low-rank adapters, in PEFT's format."""
