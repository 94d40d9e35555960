"""Runs: accepted, made durable, followed, continued after a failure, and shown."""
