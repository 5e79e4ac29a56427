"""What a plug-in must pass: each check raises ``AssertionError`` with a sentence for every promise that is broken."""

from mmmos.testing.encoder import check_encoder
from mmmos.testing.format import check_format
from mmmos.testing.head import check_head
from mmmos.testing.loss import check_loss
from mmmos.testing.selector import check_selector

__all__ = ["check_encoder", "check_format", "check_head", "check_loss", "check_selector"]
