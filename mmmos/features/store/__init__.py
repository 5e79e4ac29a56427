"""The store: a folder or a URL of feature sets, each a folder of immutable shards named by what they hold.

A clip's key is the hash of its audio content and segment; the feature set's folder is named by its fingerprint.
Writers never share a file, so there is no lock. What cannot be trusted is a miss, said once in a warning.
A clip is done (has all its rows), rejected (has a reason) or absent; only absent clips are computed.
"""

from mmmos.features.store.feature_set import FeatureSet, Frames, Rows, clip_key
from mmmos.features.store.location import location
from mmmos.features.store.shard import ClipRows, DamagedShard
from mmmos.features.store.writing import describe, folder_of, write

__all__ = [
    "ClipRows",
    "DamagedShard",
    "FeatureSet",
    "Frames",
    "Rows",
    "clip_key",
    "describe",
    "folder_of",
    "location",
    "write",
]
