"""What a search optimises: metrics and directions, constraints, dominance, hypervolume."""
