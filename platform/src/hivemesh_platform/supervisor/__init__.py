"""Local mode: starts, watches, restarts, scales and limits worker processes on this machine."""
