"""Networks beside each other: the catalogue, the family tree, accuracy against cost, what changed."""
