"""HTTP for the services: one module per resource, routes of a few lines."""
