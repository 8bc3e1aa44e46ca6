"""Models and runs on this machine."""
