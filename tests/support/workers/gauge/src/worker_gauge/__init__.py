"""A worker of the tests of equal shares."""
