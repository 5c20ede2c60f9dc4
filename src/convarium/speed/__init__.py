"""How fast networks are on this machine: in torch, forward and backward, and on every runtime that is installed."""
