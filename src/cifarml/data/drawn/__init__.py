"""Synthetic drawings of the CIFAR-10 classes."""
