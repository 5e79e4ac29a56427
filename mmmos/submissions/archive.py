"""Reading the answer file, plain or zipped: in memory, up to a limit, and never trusting what a zip says."""

import zipfile
import zlib
from pathlib import Path, PurePosixPath

from mmmos.errors import Problem
from mmmos.submissions.formats import Format

MAX_BYTES = 64 * 2**20
MAX_ENTRIES = 64


def answer_bytes(path: Path, rules: Format) -> tuple[bytes | None, list[Problem]]:
    """Content of an answer file, plain or zipped, or None; and what is wrong with the file around it."""
    name = str(path)
    if not path.is_file():
        return None, [Problem(name, "is not there." if not path.exists() else "is not a file.")]
    if path.suffix.lower() == ".zip" or zipfile.is_zipfile(path):
        return _unzip(path, rules)
    if path.stat().st_size > MAX_BYTES:
        return None, [Problem(name, f"has {path.stat().st_size} bytes; an answer has at most {MAX_BYTES}.")]
    return path.read_bytes(), []


def archives(folder: Path, rules: Format) -> list[Path]:
    """The zips of a submission's folder: the one with the format's own name, else all others, since any name will do.

    The format's own name where there is no zip at all; nothing where the format has none.
    """
    if rules.archive is None:
        return []
    named = folder / rules.archive
    others = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".zip")
    return [named] if named.exists() or not others else others


def _unzip(path: Path, rules: Format) -> tuple[bytes | None, list[Problem]]:
    """The answer at a zip's root, read in memory up to ``MAX_BYTES``; nothing is unpacked to disk."""
    name = str(path)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len(entries) > MAX_ENTRIES:
                return None, [Problem(name, f"holds {len(entries)} files; it must hold {rules.file} and nothing else.")]
            problems = [p for entry in entries if (p := _entry_problem(name, entry, rules))]
            answers = [entry for entry in entries if entry.filename == rules.file]
            if len(answers) != 1:
                what = "holds no" if not answers else f"holds {len(answers)} files named"
                return None, [*problems, Problem(name, f"{what} {rules.file} at its root; one is needed.")]
            if answers[0].flag_bits & 1:
                return None, [*problems, Problem(name, f"{rules.file} is encrypted.")]
            with archive.open(answers[0]) as file:
                data = file.read(MAX_BYTES + 1)
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
        return None, [Problem(name, f"is not a zip that can be read: {error}.")]
    if len(data) > MAX_BYTES:
        return None, [*problems, Problem(name, f"{rules.file} has more than {MAX_BYTES} bytes when unpacked.")]
    return data, problems


def _entry_problem(name: str, entry: zipfile.ZipInfo, rules: Format) -> Problem | None:
    inside = entry.filename
    parts = PurePosixPath(inside.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or "\\" in inside or ":" in inside:
        return Problem(name, f"holds the path {inside!r}, which leads out of the folder it is unpacked in.")
    if inside != rules.file and parts.name == rules.file:
        return Problem(name, f"holds {inside!r}: the answer must lie at the root, not in a folder.")
    if inside != rules.file and not entry.is_dir():
        return Problem(name, f"also holds {inside!r}; it must hold {rules.file} and nothing else.")
    return None
