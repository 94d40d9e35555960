"""A worker that uses secrets, for tests."""
