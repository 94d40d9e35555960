"""Sample data that ships with the platform."""
