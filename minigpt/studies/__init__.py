"""What a trained model shows when it is looked into, and what each idea in it is worth."""
