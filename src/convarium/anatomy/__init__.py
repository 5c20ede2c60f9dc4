"""What a network is made of: parameters, multiply-adds, activations, receptive fields."""
