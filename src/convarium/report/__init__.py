"""Figures, and the self-contained pages that hold them."""
