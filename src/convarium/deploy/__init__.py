"""Out of the laboratory: export to files that run alone, and the predictor."""
