"""Documents in: files of conversations read into one shape, packed, filtered."""
