"""Folders on the Hugging Face hub: ``hf://owner/name@revision`` is a repository, the revision a branch, tag or commit.

``HF_ENDPOINT``, ``HF_HUB_OFFLINE`` and the token (``HF_TOKEN``, or that of ``hf auth login``) are those of every
program that uses the hub.
"""

from mmmos.hub.address import Address, is_address, parse
from mmmos.hub.card import check_licence, licence
from mmmos.hub.client import Kind, is_offline
from mmmos.hub.pulling import pull
from mmmos.hub.pushing import push

__all__ = ["Address", "Kind", "check_licence", "is_address", "is_offline", "licence", "parse", "pull", "push"]
