"""Runs and jobs: what is to be done, in which order, by whom, and what came of it."""
