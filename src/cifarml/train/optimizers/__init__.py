"""Muon and learning-rate schedules."""
