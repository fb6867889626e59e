"""The ladder: what each idea of the lecture is worth."""
