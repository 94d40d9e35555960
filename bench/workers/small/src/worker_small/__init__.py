"""A worker of small jobs."""
