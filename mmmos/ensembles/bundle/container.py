"""The files of a bundle, untrusted: a folder, a flat zip, or paths by name. Nothing is unpacked, linked or run.

Names are of an allow-list, sizes are checked before and while reading, and everything else is a sentence.
"""

import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from mmmos.ensembles.bundle.about import ABOUT, ANCHORING, CARD
from mmmos.errors import StoreError, UsageError, did_you_mean

# Files; bytes of all together, of one JSON file; how many times smaller a packed file may be.
MOST_FILES, MOST_BYTES, MOST_JSON, MOST_RATIO = 1000, 4_000_000_000, 16_000_000, 100
# Bytes of a zip's directory: 1000 entries with names of this format take a tenth.
MOST_DIRECTORY = 1_000_000

# A folder, a zip, or files or their bytes by name.
Source = str | Path | Mapping[str, Path] | Mapping[str, bytes]

_MEMBER = re.compile(r"[0-9a-f]{16}\.safetensors")
_ENCRYPTED = 0x1
_STORED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class Container(Protocol):
    """Files by name. ``sizes``: declared bytes of each; ``where``: for messages."""

    where: str
    sizes: dict[str, int]

    def read(self, name: str) -> bytes:
        """The bytes of a file. Raises ``StoreError``."""
        ...

    def close(self) -> None:
        """End of reading."""
        ...


def open_container(source: Source) -> Container:
    """The files of a folder, a zip or a mapping, after a look at their names and sizes.

    Raises ``UsageError`` where there is nothing, ``StoreError`` for what a bundle does not hold.
    """
    if isinstance(source, Mapping):
        container: Container = _Paths(source)
    else:
        path = Path(source).expanduser()
        container = _Folder(path) if path.is_dir() else _Zip(_existing(path))
    _check(container)
    return container


def _existing(path: Path) -> Path:
    if path.is_file():
        return path
    if path.exists():
        raise UsageError(f"{path} is no bundle: a bundle is a folder or a zip.")
    near = did_you_mean(path.name, [each.name for each in path.parent.iterdir()]) if path.parent.is_dir() else None
    hint = f" Did you mean {str(path.parent / near)!r}?" if near else " mmmos ensembles export makes one."
    raise UsageError(f"There is no bundle {str(path)!r}.{hint}")


def _check(container: Container) -> None:
    """Raise ``StoreError`` for a name or a size that no bundle has, or without a ``bundle.json``."""
    where, sizes = container.where, container.sizes
    if len(sizes) > MOST_FILES:
        raise StoreError(f"{where} holds {len(sizes)} files; a bundle holds {MOST_FILES} at most.")
    for name in sizes:
        if name not in (ABOUT, CARD, ANCHORING) and not _MEMBER.fullmatch(name):
            raise StoreError(f"{where} holds {_shown(name)}, which is no file of a bundle. Remove it to use the rest.")
    if ABOUT not in sizes:
        raise StoreError(f"{where} is no bundle: it holds no {ABOUT}. mmmos ensembles export makes one.")
    if sizes[ABOUT] > MOST_JSON:
        raise StoreError(f"{where}: {ABOUT} has {sizes[ABOUT]} bytes; {MOST_JSON} are allowed.")
    if sum(sizes.values()) > MOST_BYTES:
        raise StoreError(f"{where} holds {sum(sizes.values())} bytes; {MOST_BYTES} are allowed.")


def _shown(name: str) -> str:
    """A name from a stranger, short and on one line."""
    return ascii(name if len(name) <= 80 else name[:80] + "…")


class _Open:
    """Files that are opened one by one."""

    def close(self) -> None:
        """See ``Container``."""


class _Folder(_Open):
    """The files of a folder; hidden ones, which systems and version control leave, do not count."""

    def __init__(self, folder: Path) -> None:
        self.where, self._folder = f"The bundle {folder}", folder
        self.sizes: dict[str, int] = {}
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    self.sizes[entry.name] = self._size(entry.name, entry.stat(follow_symlinks=False))
                    if len(self.sizes) > MOST_FILES:
                        break
        except OSError as error:
            raise StoreError(f"{self.where} cannot be read: {error.strerror or error}.") from None

    def _size(self, name: str, status: os.stat_result) -> int:
        if not stat.S_ISREG(status.st_mode):
            kinds = {stat.S_IFLNK: "a link", stat.S_IFDIR: "a folder"}
            kind = kinds.get(stat.S_IFMT(status.st_mode), "no plain file")
            raise StoreError(f"{self.where} holds {_shown(name)}, which is {kind}; a bundle holds plain files alone.")
        return status.st_size

    def read(self, name: str) -> bytes:
        """See ``Container``."""
        return _read(self._folder / name, self.sizes[name], self.where, follow=False)


class _Paths(_Open):
    """Files anywhere, by name, as in a hub's cache, which links to them, or their bytes; hidden names do not count."""

    def __init__(self, files: Mapping[str, Path] | Mapping[str, bytes]) -> None:
        self.where, self.sizes = "The bundle", {}
        self._files = {name: file for name, file in files.items() if not name.startswith(".")}
        for name, file in self._files.items():
            if not isinstance(file, bytes) and not Path(file).is_file():
                raise StoreError(f"The bundle's file {_shown(name)} is not at {file}.")
            self.sizes[name] = len(file) if isinstance(file, bytes) else Path(file).stat().st_size

    def read(self, name: str) -> bytes:
        """See ``Container``."""
        file = self._files[name]
        return file if isinstance(file, bytes) else _read(Path(file), self.sizes[name], self.where, follow=True)


def _read(path: Path, size: int, where: str, *, follow: bool) -> bytes:
    """Exactly ``size`` bytes of a plain file; it is opened so that nothing waits and, unless ``follow``, no link is
    gone through.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    flags |= 0 if follow else getattr(os, "O_NOFOLLOW", 0)
    try:
        with os.fdopen(os.open(path, flags), "rb") as file:
            plain = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            data = file.read(size + 1) if plain else b""
    except OSError as error:
        raise StoreError(f"{where}: {path.name} cannot be read: {error.strerror or error}.") from None
    if len(data) != size:
        raise StoreError(f"{where}: {path.name} changed while it was being read. Start again.")
    return data


class _Zip:
    """The files at the root of a zip."""

    def __init__(self, path: Path) -> None:
        self.where = f"The bundle {path}"
        self._look_at_directory(path)
        try:
            self._file = zipfile.ZipFile(path)
        except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
            raise StoreError(f"{self.where} is no folder and cannot be read as a zip: {error}.") from None
        self._entries = {entry.filename: entry for entry in self._file.infolist()}
        self._refuse(self._file.infolist())
        self.sizes = {name: entry.file_size for name, entry in self._entries.items()}
        if sum(self.sizes.values()) > MOST_RATIO * path.stat().st_size:
            raise StoreError(f"{self.where} would unpack to over {MOST_RATIO} times its size.")

    def _look_at_directory(self, path: Path) -> None:
        """Raise ``StoreError`` for a directory that takes long to read."""
        with path.open("rb") as file:
            file.seek(max(path.stat().st_size - 65_557, 0))
            end = file.read()
        place = end.rfind(b"PK\5\6")
        size = int.from_bytes(end[place + 12 : place + 16], "little") if place >= 0 else 0
        if size > MOST_DIRECTORY:
            raise StoreError(
                f"{self.where} has a directory of {size} bytes; a bundle holds {MOST_FILES} files at most."
            )

    def _refuse(self, entries: Iterable[zipfile.ZipInfo]) -> None:
        """Raise ``StoreError`` for an entry that no flat zip of plain files has."""
        seen: set[str] = set()
        for entry in entries:
            name, kind = _shown(entry.orig_filename), stat.S_IFMT(entry.external_attr >> 16)
            if re.search(r"[/\\:\0]", entry.orig_filename):
                advice = "A zipped bundle holds its files at its root, without folders"
                raise StoreError(f"{self.where} holds {name}. {advice}: zip the files and not the folder.")
            if kind not in (0, stat.S_IFREG):
                raise StoreError(f"{self.where} holds {name}, which is a link or no plain file.")
            if entry.filename.casefold() in seen:
                raise StoreError(f"{self.where} holds {name} twice, or two names that differ in case alone.")
            if entry.flag_bits & _ENCRYPTED:
                raise StoreError(f"{self.where}: {name} is encrypted; a bundle is not.")
            if entry.compress_type not in _STORED:
                raise StoreError(f"{self.where}: {name} is packed by another method than deflate. Zip it again.")
            if entry.file_size > MOST_RATIO * max(entry.compress_size, 1):
                raise StoreError(
                    f"{self.where}: {name} would unpack to {entry.file_size} bytes, over {MOST_RATIO} times."
                )
            seen.add(entry.filename.casefold())

    def read(self, name: str) -> bytes:
        """See ``Container``."""
        size = self.sizes[name]
        try:
            with self._file.open(self._entries[name]) as file:
                data = file.read(size + 1)
        except (
            OSError,
            ValueError,
            EOFError,
            NotImplementedError,
            RuntimeError,
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            raise StoreError(f"{self.where}: {name} cannot be unpacked: {error}.") from None
        if len(data) != size:
            raise StoreError(f"{self.where}: {name} unpacks to another size than it declares.")
        return data

    def close(self) -> None:
        """See ``Container``."""
        self._file.close()
