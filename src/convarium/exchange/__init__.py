"""Weights from other libraries and back: what is known, whose a file is, conversion to a run folder."""
