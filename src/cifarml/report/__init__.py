"""Plots, image grids and the HTML report of a run."""
