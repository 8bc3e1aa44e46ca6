"""Local endpoints."""
