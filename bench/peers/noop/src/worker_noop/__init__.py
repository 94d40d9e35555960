"""A worker whose jobs do nothing, or so little that it can be counted."""
