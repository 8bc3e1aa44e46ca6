"""Image files: known formats, opening with limits, and depth of pixels."""
