"""Models as endpoints that answer over HTTP."""
