"""A race: candidates trained under one recipe and an equal budget, the better half of them again and again."""
