"""What is lost and found again: steps, rows of dead replicas, crashes that were none."""
