"""Metrics, calibration and comparison of models and runs."""
