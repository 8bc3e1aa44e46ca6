"""Drawn images of the CIFAR-10 classes."""
