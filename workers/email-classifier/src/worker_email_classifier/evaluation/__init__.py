"""Measures the recipe on splits by time and by source: `python -m worker_email_classifier.evaluation`."""
