"""Weights: a local file or folder, the Hugging Face hub at a pinned revision, or a publisher's release; local first.

Forms: a path · ``owner/name`` (a hub repository) · ``hf://owner/name/file.pt`` (one file of it) · ``https://….zip`` (a
release, which ``mmmos features fetch`` alone downloads).
"""

import re
import shutil
import tempfile
import zipfile
from pathlib import Path

from mmmos.errors import SetupError, UsageError, did_you_mean, first_line
from mmmos.files import key_of, sha256_file
from mmmos.hub import is_offline

# Of a hub repository that holds several formats, the safe one alone is fetched.
_SAFE = ["*.json", "*.safetensors"]
_OTHER = ["*.json", "*.bin", "*.pt", "*.pth"]
_INDEX = "model.safetensors.index.json"
_NAMES = ("model.safetensors", "pytorch_model.bin", "checkpoint.pt")
_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
_RELEASE_LIMIT = 4_000_000_000
_HUB_FILE = "hf://"
_LOCAL = "or name a local copy: weights = … in a recipe or in Python, --weights on the command line"


def find(weights: str, revision: str = "") -> Path:
    """Path of weights in any of the module's forms; of the hub they are fetched when its cache has none.

    Raises ``UsageError`` for a path that does not exist, ``SetupError`` when the weights are not to be had.
    """
    path = Path(weights).expanduser()
    if path.exists():
        return path
    if weights.startswith("https://"):
        if found := is_here(weights):
            return found
        folder = Path(weights).stem
        raise SetupError(
            f"The weights {folder} are not on this machine, and a release is fetched only when asked for:"
            f" mmmos features fetch {weights}; or give your own copy with weights = the folder {folder}."
        )
    if weights.startswith(_HUB_FILE):
        return _hub_file(weights, revision or None)
    if not _is_hub_id(weights):
        near = did_you_mean(path.name, [p.name for p in path.parent.iterdir()]) if path.parent.is_dir() else None
        hint = f" Did you mean {str(path.parent / near)!r}?" if near else " A hub id has the form owner/name."
        raise UsageError(f"There are no weights at {weights!r}.{hint}")
    return _from_hub(weights, revision or None)


def weights_file(path: Path) -> Path:
    """The one file that holds the tensors: the path itself, or the one in a folder. Raises ``SetupError``."""
    files = weights_files(path)
    if len(files) > 1:
        raise SetupError(f"The weights in {path} are in {len(files)} files; this encoder reads one file.")
    return files[0]


def weights_files(path: Path) -> list[Path]:
    """The files that hold the tensors, several where a folder's index says so. Raises ``SetupError``."""
    if path.is_file():
        return [path]
    for name in _NAMES:
        if (path / name).is_file():
            return [path / name]
    if (path / _INDEX).is_file():
        return sorted(path.glob("*.safetensors"))
    found = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES)
    if len(found) == 1:
        return found
    if found:
        names = ", ".join(file.name for file in found)
        raise SetupError(f"The folder {path} holds several files of weights ({names}): name one of them.")
    raise SetupError(f"The folder {path} holds none of {', '.join(_NAMES)}. Fetch the weights again.")


def checked(path: Path, expected: str = "") -> str:
    """SHA-256 of the weights at a path; of several files, of their names and SHA-256s.

    Raises ``SetupError`` when another one is expected.
    """
    files = weights_files(path)
    got = sha256_file(files[0]) if len(files) == 1 else key_of({file.name: sha256_file(file) for file in files})
    if expected and got != expected:
        raise SetupError(
            f"{files[0]} has SHA-256 {got}, the published file has {expected}: a damaged or another file."
            " Delete it and fetch it again, or name it with weights = … to use it as it is."
        )
    return got


def is_here(weights: str, revision: str = "") -> Path | None:
    """Where weights are on this machine, None when they are not; opens no socket."""
    path = Path(weights).expanduser()
    if path.exists():
        return path
    if weights.startswith("https://"):
        folder = _release_folder(weights)
        return folder if folder.is_dir() else None
    if weights.startswith(_HUB_FILE):
        return _cached_file(weights, revision or None)
    return _cached(weights, revision or None) if _is_hub_id(weights) else None


def fetch(weights: str, revision: str = "") -> Path:
    """Path of weights in any of the module's forms, downloaded when they are not on this machine."""
    if weights.startswith("https://") and is_here(weights) is None:
        return _from_release(weights)
    return find(weights, revision)


def stamps(weights: str | None) -> tuple[object, ...]:
    """Names, sizes and times of the files of local weights; equal stamps mean that none was written in between."""
    path = Path(weights).expanduser() if weights else None
    if path is None or not path.exists():
        return ()
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.is_file())
    return tuple((file.name, status.st_size, status.st_mtime_ns) for file in files for status in [file.stat()])


def _is_hub_id(text: str) -> bool:
    """True for ``owner/name``, unless ``owner`` is a folder here: then a path was meant."""
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", text) or text.endswith(_SUFFIXES):
        return False
    return not Path(text.split("/", maxsplit=1)[0]).exists()


def _cached(repo: str, revision: str | None) -> Path | None:
    """The hub cache's folder of a repository when it holds weights."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        path = Path(snapshot_download(repo, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    return path if any(file.suffix in _SUFFIXES for file in path.iterdir()) else None


def _from_hub(repo: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    if path := _cached(repo, revision):
        return path
    pinned = f" --revision {revision}" if revision else ""
    advice = f"On a machine with network: mmmos features fetch {repo}{pinned}; {_LOCAL}"
    if is_offline():
        raise SetupError(f"The weights {repo!r} are not on this machine and the network is off. {advice}.")
    try:
        path = Path(snapshot_download(repo, revision=revision, allow_patterns=_SAFE))
        if any(path.glob("*.safetensors")):
            return path
        return Path(snapshot_download(repo, revision=revision, allow_patterns=_OTHER))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise SetupError(f"The weights {repo!r} cannot be fetched: {first_line(error)}. {advice}.") from None


def _hub_parts(weights: str) -> tuple[str, str]:
    """Repository and file name of ``hf://owner/name/file.pt``. Raises ``UsageError``."""
    found = re.fullmatch(r"hf://(\w[\w.-]*/\w[\w.-]*)/([\w.+-]+)", weights)
    if not found:
        raise UsageError(f"{weights!r} names no file of a hub repository; write hf://owner/name/file.pt.")
    return found[1], found[2]


def _cached_file(weights: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(*_hub_parts(weights), revision=revision)
    return Path(found) if isinstance(found, str) else None


def _hub_file(weights: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    if path := _cached_file(weights, revision):
        return path
    advice = f"On a machine with network: mmmos features fetch {weights}; {_LOCAL}"
    if is_offline():
        raise SetupError(f"The weights {weights!r} are not on this machine and the network is off. {advice}.")
    try:
        return Path(hf_hub_download(*_hub_parts(weights), revision=revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise SetupError(f"The weights {weights!r} cannot be fetched: {first_line(error)}. {advice}.") from None


def _release_folder(url: str) -> Path:
    """Where a release's weights are kept: a folder of the archive's name, for the name may tell how to read them."""
    from huggingface_hub.constants import HF_ASSETS_CACHE

    return Path(HF_ASSETS_CACHE) / "mmmos" / Path(url).stem


def _from_release(url: str) -> Path:
    """Download a zip and keep its weights; the folder is whole or absent."""
    if is_offline():
        raise SetupError(f"{url} cannot be fetched: the network is off.")
    folder = _release_folder(url)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        archive, unpacked = Path(scratch) / "release.zip", Path(scratch) / folder.name
        try:
            _download(url, archive)
            _unpack(archive, unpacked)
        except (OSError, zipfile.BadZipFile) as error:
            raise SetupError(
                f"{url} cannot be fetched: {error}. Fetch it by hand and give weights = its folder."
            ) from None
        shutil.rmtree(folder, ignore_errors=True)
        unpacked.rename(folder)
    return folder


def _download(url: str, to: Path) -> None:
    import torch

    torch.hub.download_url_to_file(url, str(to))


def _unpack(archive: Path, folder: Path) -> None:
    """The weights files of a zip, without its folders. Raises ``SetupError`` when there is none, or too much."""
    folder.mkdir()
    with zipfile.ZipFile(archive) as file:
        members = [member for member in file.infolist() if member.filename.endswith(_SUFFIXES)]
        if not members or sum(member.file_size for member in members) > _RELEASE_LIMIT:
            raise SetupError(f"{archive.name} holds no weights of at most {_RELEASE_LIMIT / 1e9:g} GB.")
        for member in members:
            with file.open(member) as source, (folder / Path(member.filename).name).open("xb") as target:
                shutil.copyfileobj(source, target)
