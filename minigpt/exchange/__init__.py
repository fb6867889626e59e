"""To and from the world: other libraries' formats."""
