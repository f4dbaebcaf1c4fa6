"""Networks as they are timed: shapes with random weights, one image at a time."""
