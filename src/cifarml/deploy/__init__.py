"""Deployment of models to HTTP endpoints."""
