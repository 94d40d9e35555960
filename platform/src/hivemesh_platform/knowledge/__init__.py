"""Datasets: named, versioned sets of records with provenance."""
