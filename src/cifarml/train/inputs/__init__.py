"""The input pipeline: batches and augmentation."""
