"""A worker of the tests of tickets."""
