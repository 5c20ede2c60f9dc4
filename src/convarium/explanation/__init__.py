"""Seeing what a network looks at."""
