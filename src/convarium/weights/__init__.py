"""Public weights: cards that say what a file is, layouts that say how it is written, and safe reading."""
