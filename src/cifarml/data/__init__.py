"""Images and labels: from a source to a `Dataset`."""
