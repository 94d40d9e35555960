"""Turns message records into figures about an archive: one mergeable state, one JSON document, one report."""
