"""Ensembles: many light heads trained on stored features, and a selector that picks and averages a few."""
