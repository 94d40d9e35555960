"""Every metric, declared once, and where the log goes."""
