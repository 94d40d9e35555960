"""Makes the shipped model again: `python -m worker_email_classifier.training`."""
