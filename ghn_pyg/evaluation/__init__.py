"""How well networks with predicted parameters do."""
