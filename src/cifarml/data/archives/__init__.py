"""Zip and tar archives, read without trusting them."""
