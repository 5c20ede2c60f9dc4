"""Smaller and faster networks: pruning, and what else takes away what a trained network can spare."""
