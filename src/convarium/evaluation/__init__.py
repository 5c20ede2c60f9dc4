"""How well a trained network does: errors, confusion, and its most confident mistakes."""
