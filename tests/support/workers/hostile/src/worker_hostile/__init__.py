"""A worker that fails in every way."""
