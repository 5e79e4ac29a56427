"""A plug-in of MMMOS: the encoder ``loudness`` and the loss ``log_cosh``."""
