"""Local model registry."""
