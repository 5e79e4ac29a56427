"""Training: the heads that a recipe spells, fitted to stored features on grouped folds, in groups, on any backend."""
