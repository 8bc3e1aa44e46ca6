"""Managed online endpoints in Azure ML."""
