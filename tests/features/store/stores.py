"""Rows whose numbers follow from their key, for tests of the store; also run by processes that tests start."""

import hashlib

import numpy as np

from mmmos.audio import MEASURES
from mmmos.features.spec import EncoderSpec, FeatureSpec
from mmmos.features.store.shard import ClipRows

ENCODER = EncoderSpec("e", "f", 8000, 2, 3, 0.02, 160, "none")
SPEC = FeatureSpec("set", ENCODER)
FRAMES = FeatureSpec("set", ENCODER, frames=("1",))


def key(number):
    """The key of clip ``number``."""
    return hashlib.blake2b(str(number).encode(), digest_size=16).hexdigest()


def rows(number, windows=2, part=0, last=True, frames=False):
    """The windows of a clip, or of a part of it."""
    values = np.random.default_rng([number, part])
    unit = values.uniform(-1, 1, (windows, 2, 3)).astype(np.float16)
    counts = np.arange(1, windows + 1)
    span = part * windows + np.stack([np.arange(windows), np.arange(windows) + 1.0], 1)
    single = {}
    if frames:
        single["frame_unit"] = values.uniform(-1, 1, (counts.sum(), 1, 3)).astype(np.float16)
        single["frame_norm"] = values.uniform(0, 9, (counts.sum(), 1)).astype(np.float32)
    norm = np.float32(number + np.ones((windows, 2)))
    measures = np.full(len(MEASURES), float(number)) if last else None
    return ClipRows(key(number), unit, norm, counts, span, measures, part, last, **single)


def assert_holds(found, numbers, windows=2):
    """The feature set serves exactly these numbers, in this order."""
    gathered = found.gather([key(number) for number in numbers])
    for name in ("unit", "norm", "frames", "span"):
        wanted = np.concatenate([getattr(rows(number, windows), name) for number in numbers])
        np.testing.assert_array_equal(getattr(gathered, name), wanted)
        assert getattr(gathered, name).dtype == wanted.dtype
    assert gathered.clip.tolist() == [place for place in range(len(numbers)) for _ in range(windows)]
    measures = found.measures([key(number) for number in numbers])
    assert (measures == np.array(list(numbers))[:, None]).all()


def reference(number, parts=1, frames=False):
    """All windows of a clip of ``parts`` parts, by name."""
    some = [rows(number, part=part, last=part == parts - 1, frames=frames) for part in range(parts)]
    names = ("unit", "norm", "frames", "span", *(("frame_unit", "frame_norm") if frames else ()))
    return {name: np.concatenate([getattr(part, name) for part in some]) for name in names}


def same(found, number, parts=1):
    """Whether a feature set's windows, measures and frames of a clip are the reference to the bit.

    Raises ``DamagedShard`` where it does not serve the clip.
    """
    frames = bool(found.spec.frames)
    wanted = reference(number, parts, frames)
    gathered = found.gather([key(number)])
    served = {name: getattr(gathered, name) for name in ("unit", "norm", "frames", "span")}
    if frames:
        single = found.frames(key(number))
        served |= {"frame_unit": single.unit, "frame_norm": single.norm}
    equal = all(served[name].tobytes() == wanted[name].tobytes() for name in wanted)
    return equal and (found.measures([key(number)]) == number).all()


def assert_sound(found, clips, acknowledged=(), rejected=()):
    """A feature set serves what was acknowledged, nothing that is not the reference, and nothing else.

    ``clips``: the parts of every clip that may be there, by number. ``rejected``: those that may be rejected.
    """
    done = [number for number in clips if key(number) in found]
    assert set(acknowledged) <= set(done), f"lost: {set(acknowledged) - set(done)}"
    known = {*map(key, done), *found.index.rejected}
    absent = [key(number) for number in clips if key(number) not in known]
    assert found.missing([key(number) for number in clips]) == absent
    for number in done:
        assert same(found, number, clips[number]), f"wrong rows: {number}"
    held = found.index.table.keys.view(np.uint8).reshape(-1, 16)
    assert {each.tobytes().hex() for each in held} <= {key(number) for number in (*clips, *rejected)}
    assert set(found.index.rejected) <= {key(number) for number in rejected}
    return done
