"""A worker of the tests of equal and slow instances."""
