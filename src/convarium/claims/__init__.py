"""Which published numbers are true: every figure that can be recomputed without training, beside our count of it."""
