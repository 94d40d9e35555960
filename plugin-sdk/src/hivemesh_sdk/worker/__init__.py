"""The worker's runtime; a batch goes routes → steps → pool → executor → definition."""
