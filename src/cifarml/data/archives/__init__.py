"""Safe reading of untrusted zip and tar archives."""
