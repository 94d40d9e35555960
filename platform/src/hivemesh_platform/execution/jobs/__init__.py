"""Jobs: single ones and batches, keys of submits, limits, what steps start, dead letters."""
