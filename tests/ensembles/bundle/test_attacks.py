"""Hostile bundles: each is refused with a sentence, and nothing that it holds is run, followed or unpacked.

Whoever writes such a bundle also writes its digests, so that those fit wherever they are not the point.
"""

import hashlib
import io
import json
import os
import pickle
import stat
import struct
import subprocess
import sys
import zipfile
from copy import copy
from dataclasses import replace
from importlib.metadata import EntryPoint
from types import ModuleType

import numpy as np
import pytest
from safetensors.numpy import load, save

from mmmos import registry
from mmmos.ensembles.bundle import read_bundle
from mmmos.ensembles.bundle.about import ABOUT, ANCHORING, CARD, digest_of
from mmmos.ensembles.bundle.container import open_container
from mmmos.ensembles.heads.classical import Ridge
from mmmos.errors import MmmosError, SetupError, StoreError, UsageError

SPARE = "0123456789abcdef.safetensors"


def zipped(files, path, change=lambda entry: None, **options):
    """A zip of files, (name, data) in their order; ``change`` an entry before it is written."""
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in files:
            entry = zipfile.ZipInfo(name)
            entry.compress_type = archive.compression
            entry.external_attr = 0o644 << 16
            change(entry)
            with pytest.warns() if name in archive.namelist() else _nothing():
                archive.writestr(entry, data)
    return path


class _nothing:
    def __enter__(self):
        return None

    def __exit__(self, *_):
        return None


def with_extra(name, data=b"x"):
    """A zip with one more file."""
    return lambda small, tmp: zipped([*small.files.items(), (name, data)], tmp / "b.zip")


def fields_of(files):
    return json.loads(files[ABOUT])


def with_fields(change):
    """The files with changed fields, sealed again."""

    def attack(small, tmp):
        fields = fields_of(small.files)
        change(fields)
        return small.files | {ABOUT: json.dumps(fields | {"digest": digest_of(fields)}).encode()}

    return attack


def member(fields, head):
    return next(each for each in fields["members"] if each["spec"]["head"] == head)


def with_data(head, change):
    """The files with the raw bytes of a member's file changed, and its SHA-256 with them."""

    def attack(small, tmp):
        fields = fields_of(small.files)
        name = ANCHORING if head is None else member(fields, head)["file"]
        data = change(small.files[name])
        fields["files"][name] = hashlib.sha256(data).hexdigest()
        return small.files | {name: data, ABOUT: json.dumps(fields | {"digest": digest_of(fields)}).encode()}

    return attack


def with_arrays(head, change):
    """The files with changed arrays of a member, by the name of its head; None: of the anchoring."""

    def attack(data):
        arrays = dict(load(data))
        change(arrays)
        return save({name: np.asarray(array, order="C") for name, array in arrays.items()})

    return with_data(head, attack)


def replaced(head, name, make):
    return with_arrays(head, lambda arrays: arrays.update({name: make(arrays[name])}))


def renamed(head, old, new):
    return with_arrays(head, lambda arrays: arrays.update({new: arrays.pop(old)}))


def in_spec(of, /, **values):
    return with_fields(lambda fields: member(fields, of)["spec"].update(values))


def with_text(change):
    """``bundle.json`` with its text changed."""
    return lambda small, tmp: (
        small.files | {ABOUT: change(small.files[ABOUT].decode()).encode("utf-8", "surrogatepass")}
    )


def in_folder(tools_change):
    """A folder that something was done to."""

    def attack(small, tmp):
        folder = tmp / "b"
        folder.mkdir()
        for name, data in small.files.items():
            (folder / name).write_bytes(data)
        tools_change(folder)
        return folder

    return attack


def swap_for_link(folder):
    secret = folder.parent / "secret"
    first = next(folder.glob("*.safetensors"))
    secret.write_bytes(first.read_bytes())
    first.unlink()
    first.symlink_to(secret)


def swap_for_fifo(folder):
    first = next(folder.glob("*.safetensors"))
    first.unlink()
    os.mkfifo(first)


def fill(folder):
    for number in range(1001):
        (folder / f"{number:016x}.safetensors").touch()


def swell(folder):
    (folder / SPARE).touch()
    os.truncate(folder / SPARE, 4_000_000_001)


def after(first, then):
    """One attack on the files of another."""
    return lambda small, tmp: then(replace(small, files=first(small, tmp)), tmp)


def as_neighbours_of_nothing(arrays):
    for number in range(2):
        features = arrays.pop(f"{number}.head.support").shape[1]
        for name in ("dual", "intercept", "gamma"):
            del arrays[f"{number}.head.{name}"]
        arrays[f"{number}.head.clips"] = np.zeros((0, features), np.float32)
        arrays[f"{number}.head.targets"] = np.zeros((0, 4), np.float32)


def as_link(entry):
    if entry.filename == ANCHORING:
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16


class Canary:
    """Unpickled, it makes a file."""

    def __reduce__(self):
        return os.mkdir, ("canary",)


def encrypted(small, tmp):
    """The flag that says so, in both of a zip's places."""
    data = bytearray(zipped(small.files.items(), tmp / "b.zip").read_bytes())
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        place = data.find(signature)
        data[place + offset] |= 1
    (tmp / "b.zip").write_bytes(data)
    return tmp / "b.zip"


def lying_size(by, compression):
    """A central directory that declares a size of ``bundle.json`` which misses its own."""

    def attack(small, tmp):
        path = zipped(small.files.items(), tmp / "b.zip", compression=compression)
        data = bytearray(path.read_bytes())
        place = data.rfind(ABOUT.encode()) - 46 + 24
        struct.pack_into("<I", data, place, len(small.files[ABOUT]) + by)
        path.write_bytes(data)
        return path

    return attack


def overlapping(small, tmp):
    """A hundred names for the bytes of one file, which is packed 80 to 1."""
    with zipfile.ZipFile(tmp / "b.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(ABOUT, "{}")
        archive.writestr(SPARE, np.random.default_rng(0).bytes(2000) + bytes(180_000))
        for number in range(100):
            entry = copy(archive.getinfo(SPARE))
            entry.filename = f"{number:016x}.safetensors"
            archive.filelist.append(entry)
    return tmp / "b.zip"


def huge_directory(small, tmp):
    """An end record whose directory would take 100 MB."""
    data = bytearray(zipped(small.files.items(), tmp / "b.zip").read_bytes())
    struct.pack_into("<I", data, data.rfind(b"PK\5\6") + 12, 100_000_000)
    (tmp / "b.zip").write_bytes(data)
    return tmp / "b.zip"


def other_local_name(small, tmp):
    """A local header with another name than the directory's."""
    path = zipped(small.files.items(), tmp / "b.zip")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"bundle.json", b"../../x.txt", 1))
    return path


def cut(small, tmp):
    """A zip without its end."""
    (tmp / "b.zip").write_bytes(zipped(small.files.items(), tmp / "whole.zip").read_bytes()[:-60])
    return tmp / "b.zip"


def nested_zip():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(ABOUT, "{}")
    return buffer.getvalue()


def header_of(size, text=b"{}"):
    return lambda _: struct.pack("<Q", size) + text


def axis_weights(value):
    def change(fields):
        for each in fields["members"]:
            each["weights"]["PQ"] = value

    return change


def drop(fields):
    fields["members"].pop()
    for each in fields["members"]:
        each["weights"] = {axis: 1 / len(fields["members"]) for axis in fields["axes"]}


DEEP = '{"format": 1, "digest": ' + "[" * 50 + "]" * 50 + "}"
VERY_DEEP = '{"format": 1, "digest": ' + "[" * 200_000 + "]" * 200_000 + "}"
SCALE = "0.standardise.scale.0"
MANY = json.dumps({str(number): {} for number in range(20_001)}).encode()

# What is attacked, and what the sentence says.
ATTACKS = {
    "zip: a path upwards": (with_extra("../evil.safetensors"), "without folders"),
    "zip: an absolute path": (with_extra("/etc/cron.d/evil"), "without folders"),
    "zip: a drive": (with_extra("C:evil.safetensors"), "without folders"),
    "zip: a backslash": (with_extra("..\\evil.safetensors"), "without folders"),
    "zip: a subfolder": (with_extra("a/" + SPARE), "zip the files and not the folder"),
    "zip: a folder": (with_extra("models/", b""), "without folders"),
    "zip: code": (with_extra("handler.py", b"import os"), "'handler.py', which is no file of a bundle"),
    "zip: another zip": (with_extra("more.zip", nested_zip()), "no file of a bundle"),
    "zip: a terminal's escapes": (with_extra("\x1b[2Jx.safetensors"), r"\\x1b\[2J"),
    "zip: a name twice": (with_extra(ABOUT, b"{}"), "twice"),
    "zip: names that differ in case": (with_extra("BUNDLE.json", b"{}"), "differ in case"),
    "zip: a link": (lambda s, t: zipped(s.files.items(), t / "b.zip", as_link), "a link"),
    "zip: encrypted": (encrypted, "is encrypted"),
    "zip: bzip2": (lambda s, t: zipped(s.files.items(), t / "b.zip", compression=zipfile.ZIP_BZIP2), "deflate"),
    "zip: a bomb": (
        lambda s, t: zipped(
            [*s.files.items(), (SPARE, bytes(5_000_000))], t / "b.zip", compression=zipfile.ZIP_DEFLATED
        ),
        "over 100 times",
    ),
    "zip: a size that is too small": (lying_size(-1, zipfile.ZIP_DEFLATED), "cannot be unpacked"),
    "zip: a size that is too large": (lying_size(1, zipfile.ZIP_STORED), "another size than it declares"),
    "zip: many names for one file": (overlapping, "over 100 times its size"),
    "zip: a huge directory": (huge_directory, "directory of 100000000 bytes"),
    "zip: two names for one file": (other_local_name, "cannot be unpacked"),
    "zip: too many files": (
        lambda s, t: zipped([*s.files.items(), *((f"{n:016x}.safetensors", b"") for n in range(1001))], t / "b.zip"),
        "1000 at most",
    ),
    "zip: undeclared": (with_extra(SPARE), "does not name"),
    "zip: cut": (cut, "cannot be read as a zip"),
    "zip: no bundle": (lambda s, t: zipped([("README.md", b"hello")], t / "b.zip"), "holds no bundle.json"),
    "folder: a link": (in_folder(swap_for_link), "a link"),
    "folder: a link out": (in_folder(lambda f: (f / "x").symlink_to("/etc")), "a link"),
    "folder: a pipe": (in_folder(swap_for_fifo), "no plain file"),
    "folder: a subfolder": (in_folder(lambda f: (f / "sub").mkdir()), "a folder"),
    "folder: code": (in_folder(lambda f: (f / "modeling.py").write_text("")), "no file of a bundle"),
    "folder: a pickle": (in_folder(lambda f: (f / "head.pkl").write_bytes(b"")), "no file of a bundle"),
    "folder: undeclared": (in_folder(lambda f: (f / SPARE).write_bytes(b"")), "does not name"),
    "folder: a member is missing": (in_folder(lambda f: next(f.glob("[0-9a-f]*.safetensors")).unlink()), "lacks"),
    "folder: too many files": (in_folder(fill), "1000 at most"),
    "folder: too large": (in_folder(swell), "4000000000 are allowed"),
    "files: one is elsewhere": (lambda s, t: {ABOUT: t / "absent.json"}, "is not at"),
    "arrays: a pickle in disguise": (with_data("ridge", lambda _: pickle.dumps(Canary())), "safetensors"),
    "arrays: a huge header": (with_data("ridge", header_of(1 << 62)), "header of at most"),
    "arrays: a header behind the end": (with_data("ridge", header_of(500_000)), "cannot be read|not the JSON"),
    "arrays: nothing": (with_data("ridge", lambda _: b""), "no safetensors file"),
    "arrays: cut": (with_data("ridge", lambda data: data[:-8]), "cannot be read as safetensors"),
    "arrays: of other bytes": (with_data("svr", lambda data: data + b"x"), "cannot be read as safetensors"),
    "arrays: a type that no head has": (
        with_data("ridge", header_of(62, b'{"scale":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}}0')),
        "'F8_E4M3', which no head has",
    ),
    "arrays: too many": (with_data("ridge", header_of(len(MANY), MANY)), "20001 arrays"),
    "arrays: renamed": (renamed("ridge", "0.head.coefficients", "0.head.coeficients"), "meant for 'coefficients'"),
    "arrays: renamed beside a head": (renamed("mlp", "scale", "scales"), "meant for 'scale'"),
    "arrays: renamed of a network": (renamed("mlp", "1.head.last.bias", "1.head.last.basis"), "meant for 'last.bias'"),
    "arrays: one too many": (with_arrays("ridge", lambda a: a.update({"0.head.extra": np.zeros(3)})), "none of its"),
    "arrays: a head too many": (with_arrays("ridge", lambda a: a.update({"2.head.intercept": np.zeros(4)})), "2.head"),
    "arrays: one too few": (with_arrays("svr", lambda a: a.pop("1.head.gamma")), "lacks the array 'gamma'"),
    "arrays: another type": (
        replaced("ridge", "0.head.intercept", lambda a: a.astype(np.float32)),
        "of the type float32",
    ),
    "arrays: another shape": (replaced("ridge", "0.head.intercept", lambda a: a[:1]), "has the shape"),
    "arrays: transposed": (replaced("ridge", "0.head.coefficients", lambda a: a.T), "has the shape"),
    "arrays: shapes of a network": (replaced("mlp", "0.head.shapes", lambda a: a + 1), "shapes and axes"),
    "arrays: NaN": (replaced("ridge", "0.head.coefficients", lambda a: a * np.nan), "not finite"),
    "arrays: infinite": (replaced("mlp", "0.head.last.bias", lambda a: a + np.inf), "not finite"),
    "arrays: NaN as an offset": (replaced("ridge", "0.offset", lambda a: a * np.nan), "not finite"),
    "arrays: nothing to be near to": (
        after(with_arrays("svr", as_neighbours_of_nothing), in_spec("svr", head="knn", options={})),
        "no clips to be near to",
    ),
    "arrays: NaN as a scale": (replaced("ridge", SCALE, lambda a: a * np.nan), "not above 0"),
    "arrays: 0 as a scale": (replaced("ridge", SCALE, lambda a: a * 0), "not above 0"),
    "arrays: trees that lead out": (replaced("extra_trees", "0.head.left", lambda a: a + 1_000_000), "outside 0 to"),
    "arrays: trees that read out": (replaced("extra_trees", "0.head.feature", lambda a: a - 1_000), "outside 0 to"),
    "arrays: a walk for ever": (replaced("extra_trees", "0.head.depth", lambda a: a * 0 + (2**31 - 1)), "outside 0 to"),
    "arrays: calibration that falls": (replaced("ridge", "calibration.slope", lambda a: a * 0 - 1), "no rising line"),
    "anchoring: another shape": (replaced(None, "0.x", lambda a: a[:2]), "has the shape"),
    "anchoring: NaN": (replaced(None, "1.y", lambda a: a * np.nan), "not finite"),
    "anchoring: more lines": (with_arrays(None, lambda a: a.update({"9.x": np.zeros((4, 1))})), "more lines"),
    "spec: options of another type": (in_spec("mlp", options={"hidden": "many"}), "hidden"),
    "spec: unknown options": (in_spec("ridge", options={"alhpa": 1}), "alpha"),
    "spec: a network too large": (in_spec("mlp", options={"hidden": 10**9}), "has the shape"),
    "spec: a network too deep": (in_spec("mlp", options={"hidden": 4, "depth": 10**9}), "1000000000 layers"),
    "spec: endless steps": (in_spec("mlp", head="blstm_t", options={"rate": 1e12}), "1e\\+12 steps a second"),
    "spec: an unknown layer": (in_spec("ridge", layers=["a9"]), "no layer 'a9'"),
    "spec: features of nowhere": (in_spec("ridge", features=["c"]), "does not describe"),
    "spec: no features": (in_spec("ridge", features=[]), "names no feature set"),
    "spec: unknown fields": (in_spec("ridge", code="import os"), "unknown key"),
    "json: a key twice": (
        with_text(lambda t: t.replace('"name": "small"', '"name": "small", "name": "b"')),
        "there twice",
    ),
    "json: deep": (with_text(lambda _: DEEP), "deeper than 32"),
    "json: very deep": (with_text(lambda _: VERY_DEEP), "too deep"),
    "json: NaN": (with_text(lambda t: t.replace('"pool": 4', '"pool": NaN')), "NaN is no number"),
    "json: infinite": (with_text(lambda t: t.replace('"pool": 4', '"pool": 1e999')), "too large"),
    "json: endless digits": (with_text(lambda t: t.replace('"pool": 4', '"pool": ' + "9" * 10_000)), "too large"),
    "json: half a character": (with_text(lambda t: t.replace('"small"', r'"\ud800"')), "not the JSON"),
    "json: not UTF-8": (lambda s, t: s.files | {ABOUT: b'{"name": "\xff"}'}, "not the JSON"),
    "json: a list": (with_text(lambda _: "[]"), "no JSON object"),
    "json: empty": (with_text(lambda _: ""), "not the JSON"),
    "json: too large": (with_text(lambda t: t + " " * 16_000_000), "16000000 are allowed"),
    "json: no format": (with_fields(lambda fields: fields.pop("format")), "no format number"),
    "json: format 0": (with_fields(lambda fields: fields.update(format=0)), "no format number"),
    "json: format true": (with_fields(lambda fields: fields.update(format=True)), "no format number"),
    "json: a weight changed": (with_text(lambda t: t.replace('"PQ": 0.25', '"PQ": 0.26')), "digest"),
    "fields: unknown": (with_fields(lambda fields: fields.update(auto_map={"x": "y.py"})), "unknown key 'auto_map'"),
    "fields: a name with a path": (with_fields(lambda fields: fields.update(name="../../x")), "name"),
    "fields: other axes": (with_fields(lambda fields: fields.update(axes=["PQ", "XX"])), "axes"),
    "fields: weights that sum to nothing": (with_fields(axis_weights(0.0)), "sum to 0"),
    "fields: weights beyond all": (with_fields(axis_weights(1e308)), "sum to"),
    "fields: a member dropped": (with_fields(drop), "different files"),
    "fields: a member twice": (
        with_fields(lambda fields: fields["members"].append(fields["members"][0])),
        "two members have the same key",
    ),
    "fields: few quantiles": (
        with_fields(lambda fields: fields.update(reference={"": dict.fromkeys(fields["axes"], (1.0, 2.0))})),
        "needs 21 numbers for each axis",
    ),
    "fields: a file elsewhere": (
        with_fields(lambda fields: fields["members"][0].update(file="../x.safetensors")),
        "safetensors; got",
    ),
    "fields: endless windows": (
        with_fields(lambda fields: fields["encoders"][0].update(hop=1e-9)),
        "over 1000 windows of every 10 s",
    ),
    "fields: an encoder that nobody reads": (
        with_fields(lambda fields: fields["encoders"].append(fields["encoders"][0] | {"name": "more"})),
        "no member reads the feature set 'more'",
    ),
    "fields: escapes in a licence": (
        with_fields(lambda fields: fields["encoders"][0]["facts"].update(licence="\x1b]0;x\7")),
        "cannot be shown",
    ),
}


UNKNOWN = {
    "spec: a module": in_spec("ridge", head="os:system"),
    "spec: a file of code": in_spec("ridge", head="canary.py:Head"),
    "spec: a loss of code": in_spec("mlp", loss="canary.py:LOSS"),
}


def test_there_are_enough_attacks():
    assert len(ATTACKS) > 80


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_with_a_sentence(name, small, tmp_path, monkeypatch):
    attack, expected = ATTACKS[name]
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    source = attack(small, tmp_path)
    with pytest.raises(MmmosError, match=expected) as raised:
        read_bundle(source)
    told = str(raised.value)
    assert raised.value.exit_code == 4 and told.endswith((".", "?")) and len(told) < 1200 and told.isprintable()
    assert list((tmp_path / "work").iterdir()) == []


def test_what_is_no_bundle_is_named(tmp_path, small, tools):
    tools.laid_out(small.files, tmp_path / "first")
    with pytest.raises(UsageError, match=r"Did you mean .*first"):
        read_bundle(tmp_path / "frist")
    os.mkfifo(tmp_path / "pipe.zip")
    with pytest.raises(UsageError, match="a folder or a zip"):
        read_bundle(tmp_path / "pipe.zip")
    (tmp_path / "notes.zip").write_text("hello")
    with pytest.raises(StoreError, match="cannot be read as a zip"):
        read_bundle(tmp_path / "notes.zip")


def test_a_folder_that_may_not_be_looked_into_is_a_sentence(small, tools, tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    folder = tools.laid_out(small.files, tmp_path / "b")
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(StoreError, match=r"b cannot be read: Permission denied\.$"):
        read_bundle(folder)


@pytest.mark.parametrize(
    ("swap", "sentence"),
    [
        (lambda file: file.unlink(), "cannot be read: No such file"),
        (lambda file: (file.rename(file.with_name("x")), file.symlink_to(file.with_name("x"))), "cannot be read"),
        (lambda file: (file.unlink(), os.mkfifo(file)), "changed while it was being read"),
        (lambda file: file.write_bytes(file.read_bytes() + b" "), "changed while it was being read"),
        (lambda file: os.truncate(file, 10), "changed while it was being read"),
    ],
    ids=["gone", "a link", "a pipe", "longer", "shorter"],
)
def test_a_file_that_is_swapped_after_the_look_at_its_size_is_not_used(swap, sentence, small, tools, tmp_path):
    folder = tools.laid_out(small.files, tmp_path / "b")
    container = open_container(folder)
    swap(folder / ABOUT)
    with pytest.raises(StoreError, match=sentence):
        container.read(ABOUT)


class Theirs(Ridge):
    """A head of another package."""

    def restore(self, state):
        """Take what was learned, of which the coefficients are a part."""
        assert state["coefficients"].ndim
        return super().restore(state)


@pytest.fixture
def theirs(monkeypatch):
    """Makes the head ridge of a bundle one of another package."""
    package, real = ModuleType("their_package"), registry._registered
    package.Theirs = Theirs
    monkeypatch.setitem(sys.modules, "their_package", package)
    more = {"heads": {"theirs": EntryPoint("theirs", "their_package:Theirs", "mmmos.heads")}}
    monkeypatch.setattr(registry, "_registered", lambda kind: real(kind) | more.get(kind, {}))
    yield in_spec("ridge", head="theirs")
    registry._from_package.cache_clear()


def test_the_arrays_of_a_head_of_another_package_are_the_packages_own_and_finite(theirs, small, tmp_path):
    files, clip = theirs(small, tmp_path), small.features.of(["clip100"])
    found, expected = (read_bundle(each).predict(clip).scores for each in (files, small.files))
    np.testing.assert_array_equal(found, expected)
    name = "0.head.coefficients"
    for attack, sentence in (
        (with_arrays("theirs", lambda arrays: arrays.pop(name)), r"cannot be restored: KeyError: 'coefficients'\.$"),
        (replaced("theirs", name, lambda array: array * np.nan), "coefficients holds numbers that are not finite"),
    ):
        with pytest.raises(StoreError, match=sentence):
            read_bundle(attack(replace(small, files=files), tmp_path))


@pytest.mark.parametrize("name", ["os:system", "canary.py:CARD", "melstat"])
def test_an_encoder_that_nothing_registers_is_not_imported(name, small, tools, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "canary.py").write_text("raise SystemExit('run')\n")
    files = tools.changed(small.files, lambda fields: fields["encoders"][0].update(encoder=name))
    with pytest.raises(SetupError, match="which no installed package registers"):
        read_bundle(files).encoders("cpu")


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_head_or_loss_that_nothing_registers_is_not_imported(name, small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "canary.py").write_text("raise SystemExit('run')\n")
    with pytest.raises(SetupError, match=r"needs the (head|loss) '.*', which no installed package registers\. Install"):
        read_bundle(UNKNOWN[name](small, tmp_path))


AUDITED = """
import json, os, pathlib, sys
from mmmos.ensembles.bundle import read_bundle
from mmmos.errors import MmmosError
import mmmos.ensembles.bundle.layouts, mmmos.ensembles.heads.pooled, mmmos.ensembles.heads.classical, torch
FORBIDDEN = {"os.system", "subprocess.Popen", "socket.connect", "os.exec", "os.posix_spawn", "pickle.find_class",
             "os.mkdir", "os.rename", "os.symlink", "os.remove", "shutil.unpack_archive"}
seen = []
def hook(event, arguments):
    writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
    if event in FORBIDDEN or writes:
        seen.append(event)
sys.addaudithook(hook)
refused = 0
for source in sys.argv[1:]:
    try:
        read_bundle(source)
    except MmmosError:
        refused += 1
print(json.dumps({"refused": refused, "seen": seen}))
"""


def test_nothing_is_run_written_or_reached(small, tmp_path, tools):
    """The attacks that hold code, in one process that is watched."""
    names = ["arrays: a pickle in disguise", "zip: a path upwards", "zip: code", "folder: a link"]
    sources = []
    for number, attack in enumerate([*(ATTACKS[name][0] for name in names), *UNKNOWN.values()]):
        folder = tmp_path / str(number)
        folder.mkdir()
        source = attack(small, folder)
        sources.append(tools.laid_out(source, folder / "files") if isinstance(source, dict) else source)
    work = tmp_path / "work"
    work.mkdir()
    (work / "canary.py").write_text("import os\nos.mkdir('canary')\nHead = LOSS = None\n")
    done = subprocess.run([sys.executable, "-c", AUDITED, *sources], capture_output=True, text=True, cwd=work)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"refused": len(sources), "seen": []}
    assert [path.name for path in work.iterdir()] == ["canary.py"]


def test_a_renamed_card_is_not_mistaken_for_a_file_of_the_bundle(small):
    files = dict(small.files)
    files["readme.md"] = files.pop(CARD)
    with pytest.raises(StoreError, match="no file of a bundle"):
        read_bundle(files)
