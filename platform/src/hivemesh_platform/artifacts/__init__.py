"""Content-addressed bytes: stored once, verified on read, handed out by grants."""
