"""Models as versions, with the runs that made them."""
