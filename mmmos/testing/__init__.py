"""What a plug-in must pass: each check raises ``AssertionError`` with a sentence for every promise that is broken."""

from mmmos.testing.encoder import check_encoder
from mmmos.testing.loss import check_loss

__all__ = ["check_encoder", "check_loss"]
