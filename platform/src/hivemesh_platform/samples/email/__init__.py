"""A sample mail archive: real messages from permissive test sets, and some written for it."""
