"""Who may do what on the platform."""
