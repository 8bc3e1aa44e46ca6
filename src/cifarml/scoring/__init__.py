"""The scoring script and its request format."""
