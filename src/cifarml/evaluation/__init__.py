"""Metrics, calibration and comparisons of models and runs."""
