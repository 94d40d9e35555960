"""Which live instance takes a step, and why."""
