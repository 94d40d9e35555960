"""Everything a worker author needs, under one import."""
