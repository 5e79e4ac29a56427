"""Features: frozen encoders run once over every clip; pooled embeddings stay in a store on disk."""
