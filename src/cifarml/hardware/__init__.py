"""Devices, memory and precision of this machine."""
