"""Extraction: the clips of a manifest through encoders into the store; what is there is not computed again."""
