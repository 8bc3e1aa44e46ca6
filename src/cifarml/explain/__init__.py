"""Explanation of predictions with Grad-CAM heat maps."""
