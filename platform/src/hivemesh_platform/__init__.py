"""The Hivemesh control plane."""
