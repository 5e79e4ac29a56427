"""Bundles: an exported ensemble that scores audio anywhere, as arrays and JSON, without any code.

bundle.json              what it is made of: ``About``
<key>.safetensors        the arrays of a member: heads, standardisers, calibration
anchoring.safetensors    lines to the scale of a labelled set, where the rule has ``calibrate``
README.md                the model card, for people; nothing is read from it
"""

from mmmos.ensembles.bundle.about import About
from mmmos.ensembles.bundle.bundle import Bundle, read_bundle
from mmmos.ensembles.bundle.write import files_of, write_bundle

__all__ = ["About", "Bundle", "files_of", "read_bundle", "write_bundle"]
