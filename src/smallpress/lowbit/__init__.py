"""Number formats, defined once: blocks of low-bit codes with a scale."""
