"""Damage of any byte, length, name or place of a store's files is seen or harmless: only what was written is served."""

import logging
import random
import shutil
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from mmmos.features.spec import FeatureSpec
from mmmos.features.store import FeatureSet
from mmmos.features.store.compaction import compact
from mmmos.features.store.shard import SUFFIX, DamagedShard
from mmmos.features.store.upkeep import verify

sys.path.append(str(Path(__file__).parent))
from faults import SOAK
from stores import ENCODER, FRAMES, SPEC, key, rows, same

CLIPS = {1: 1, 2: 1, 3: 3}
REJECTED = {9: ("too_short", "0.05 s", "a.wav"), 8: ("empty_file", "b", "b.wav")}
SETS = {"windows": SPEC, "frames": FRAMES}


@pytest.fixture(autouse=True)
def _quiet():
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(params=SETS)
def spec(request):
    return SETS[request.param]


@pytest.fixture
def root(spec, tmp_path):
    """A store of two shards: clips, parts of one, rejections."""
    write = FeatureSet(tmp_path / "store", spec).write
    write([part(spec, 1), part(spec, 3, 0), part(spec, 3, 2)], {key(9): REJECTED[9]})
    write([part(spec, 3, 1), part(spec, 2)], {key(8): REJECTED[8]})
    return tmp_path / "store"


def part(spec, number, at=0):
    return rows(number, part=at, last=at == CLIPS[number] - 1, frames=bool(spec.frames))


def shards(root):
    return sorted(root.glob(f"*/*{SUFFIX}"))


def served(root, spec):
    """The clips that are served after all were asked for; each is the reference, and so is each rejection."""
    found = FeatureSet(root, spec)
    known = set()
    for number, parts in CLIPS.items():
        try:
            assert same(found, number, parts), number
            known.add(number)
        except DamagedShard:
            assert key(number) in found.missing([key(number)])
    for number, (reason, detail, _) in REJECTED.items():
        rejection = found.rejections([key(number)])
        assert rejection in ({}, {key(number): (reason, detail)})
        known |= {number} if rejection else set()
        assert (key(number) in found.missing([key(number)])) == (not rejection)
    assert not set(found.index.rejected) - {key(number) for number in REJECTED}
    return known


def mend(root, spec):
    """What a run would do: set aside, compute what is missing, read, tidy up. After that all is well."""
    found = FeatureSet(root, spec)
    for _ in range(3):
        for number, parts in CLIPS.items():
            with suppress(DamagedShard):
                same(found, number, parts)
        found.prepare()
        for number in lacking(found):
            begun = found.index.begun([key(number)]).get(key(number), ())
            found.write([part(spec, number, at) for at in range(CLIPS[number]) if at not in begun])
    known = found.index.rejected
    found.write([], {key(number): reason for number, reason in REJECTED.items() if key(number) not in known})
    assert all(same(found, number, parts) for number, parts in CLIPS.items())
    assert served(root, spec) == {*CLIPS, *REJECTED}
    compact(found.folder, spec.fingerprint)
    for path in found.folder.glob("*.damaged"):
        path.unlink()
    assert served(root, spec) == {*CLIPS, *REJECTED}
    assert [each for each in verify(root, full=True) if "another feature set" not in each] == []


def lacking(found):
    """The numbers of the clips that a feature set lacks."""
    absent = set(found.missing(map(key, CLIPS)))
    return [number for number in CLIPS if key(number) in absent]


def flipped(path, at, bit):
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit]))


def test_every_flipped_bit_is_seen_and_costs_no_more_than_its_shard(root, spec):
    """One bit of every third byte of the store; every bit of every byte under soak."""
    flips, step = 0, 3 if SOAK == 1 else 1
    for path in shards(root):
        for at in range(0, path.stat().st_size, step):
            for bit in range(8) if SOAK > 1 else [(at * 5 + at // 8) % 8]:
                flipped(path, at, bit)
                known = served(root, spec)
                assert known != {*CLIPS, *REJECTED} and known & {1, 2}
                if flips % 5 == 0:
                    assert [path.name in problem for problem in verify(root, full=True)] == [True]
                flipped(path, at, bit)
                flips += 1
    assert flips > 3000 // step and served(root, spec) == {*CLIPS, *REJECTED}


def test_what_was_flipped_is_computed_again_and_all_is_well(root, spec, tmp_path):
    chance = random.Random(0)
    for trial in range(30 * SOAK):
        copy = tmp_path / str(trial)
        shutil.copytree(root, copy)
        for _ in range(chance.choice([1, 1, 2, 5])):
            path = chance.choice(shards(copy))
            flipped(path, chance.randrange(path.stat().st_size), chance.randrange(8))
        served(copy, spec)
        mend(copy, spec)
        shutil.rmtree(copy)


def test_every_flipped_byte_of_the_description_is_harmless(root, spec):
    (about,) = root.glob("*/spec.json")
    content = about.read_bytes()
    for at in range(0, len(content), 1 if SOAK > 1 else 7):
        flipped(about, at, at % 8)
        assert served(root, spec) == {*CLIPS, *REJECTED}
        FeatureSet(root, spec).prepare()
        assert about.read_bytes() == content


def test_every_length_but_the_whole_one_is_seen(root, spec):
    for path in shards(root):
        content = path.read_bytes()
        for length in range(0, len(content), 1 if SOAK > 1 else 7):
            path.write_bytes(content[:length])
            assert served(root, spec) < {*CLIPS, *REJECTED}
        for more in (b"\0", b"x", b"\0" * 4096, content):
            path.write_bytes(content + more)
            assert served(root, spec) < {*CLIPS, *REJECTED}
            assert [path.name in problem for problem in verify(root)] == [True]
        path.write_bytes(content)


@pytest.mark.parametrize("size", [1, 8, 64, 512, 4096])
@pytest.mark.parametrize("fill", [b"\0", b"\xff"])
def test_blocks_that_read_as_something_else_are_seen(root, spec, size, fill):
    for path in shards(root):
        content = path.read_bytes()
        for at in range(0, len(content), max(size, 32 if SOAK == 1 else 1)):
            block = content[at : at + size]
            other = content[:at] + fill * len(block) + content[at + size :]
            path.write_bytes(other)
            assert (served(root, spec) == {*CLIPS, *REJECTED}) == (other == content)
        path.write_bytes(content)


def swapped(one, other, root):
    spare = one.with_name("spare")
    one.rename(spare)
    other.rename(one)
    spare.rename(other)


def exchanged_ends(one, other, root):
    contents = one.read_bytes(), other.read_bytes()
    one.write_bytes(contents[0][:-64] + contents[1][-64:])
    other.write_bytes(contents[1][:-64] + contents[0][-64:])


def renamed(one, other, root):
    one.rename(one.with_name("0" * 32 + SUFFIX))


def copied_under_another_name(one, other, root):
    shutil.copy(one, one.with_name("f" * 32 + SUFFIX))


def joined_end_to_end(one, other, root):
    one.write_bytes(one.read_bytes() + other.read_bytes())


def emptied(one, other, root):
    one.write_bytes(b"")


def deleted(one, other, root):
    one.unlink()


def replaced_by_a_folder(one, other, root):
    one.unlink()
    one.mkdir()


def of_another_set(one, other, root):
    wanted = FeatureSpec("set", ENCODER, window=5.0)
    FeatureSet(root / "other", wanted).write([rows(number) for number in (1, 2, 7)], {key(1): ("a", "b", "c")})
    (path,) = shards(root / "other")
    shutil.copy(path, one.parent)
    shutil.rmtree(root / "other")


def another_set_under_its_name(one, other, root):
    of_another_set(one, other, root)
    (path,) = {*one.parent.glob(f"*{SUFFIX}")} - {one, other}
    path.replace(one)


SEEN = [swapped, exchanged_ends, renamed, joined_end_to_end, emptied, another_set_under_its_name]
HARMLESS = [copied_under_another_name, of_another_set]


@pytest.mark.parametrize("harm", SEEN + HARMLESS + [deleted])
def test_shards_in_the_wrong_place_are_never_taken_for_others(harm, root, spec):
    one, other = shards(root)
    harm(one, other, root)
    assert (served(root, spec) == {*CLIPS, *REJECTED}) == (harm in HARMLESS)
    assert harm is deleted or verify(root, full=True)
    mend(root, spec)


def test_a_folder_under_a_shard_s_name_is_an_error_and_no_damage(root, spec):
    one, other = shards(root)
    replaced_by_a_folder(one, other, root)
    with pytest.raises(Exception, match=r"cannot be read: Is a directory\."):
        FeatureSet(root, spec)


def test_of_two_copies_the_sound_one_is_served_and_compaction_keeps_it(root, spec):
    """Whichever of the copies comes first."""
    found = FeatureSet(root, spec)
    found.write([part(spec, 1)])
    for path in shards(root):
        content = path.read_bytes()
        for at in range(0, len(content), 97):
            flipped(path, at, at % 8)
            assert 1 in served(root, spec)
            flipped(path, at, at % 8)
    flipped(shards(root)[0], shards(root)[0].stat().st_size - 1, 0)
    compact(found.folder, spec.fingerprint)
    assert 1 in served(root, spec)


def test_damaged_frames_are_seen_by_those_who_read_frames_alone(tmp_path):
    found = FeatureSet(tmp_path, FRAMES)
    found.write([part(FRAMES, 1)])
    (path,) = shards(tmp_path)
    flipped(path, path.stat().st_size - 1, 0)
    with pytest.raises(DamagedShard, match="row 1 does not match its checksum"):
        found.frames(key(1))
    assert found.missing([key(1)]) == [key(1)]
    found.write([part(FRAMES, 1)])
    assert found.frames(key(1)).unit.tobytes() == part(FRAMES, 1).frame_unit.tobytes()


def test_a_shard_damaged_while_it_is_in_use_is_a_miss_and_mended_by_the_same_process(root, spec):
    found = FeatureSet(root, spec)
    for path in shards(root):
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content[:-9])
    for number, parts in CLIPS.items():
        with pytest.raises(DamagedShard):
            same(found, number, parts)
    assert found.missing(map(key, CLIPS)) == [*map(key, CLIPS)]
    found.write([part(spec, number, at) for number in CLIPS for at in range(CLIPS[number])])
    assert all(same(found, number, parts) for number, parts in CLIPS.items())
