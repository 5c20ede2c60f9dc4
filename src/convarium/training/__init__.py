"""Training: the recipe, the loop, checkpoints that survive anything, and the verb that joins them."""
