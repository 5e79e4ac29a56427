"""``push``: a folder becomes the content of a repository."""

from pathlib import Path

from mmmos.errors import SetupError, UsageError
from mmmos.hub.address import Address, parse
from mmmos.hub.client import ITS_OWN, Kind, client, is_offline


def push(
    folder: str | Path, address: Address | str, *, kind: Kind, private: bool = False, message: str | None = None
) -> str:
    """Make the folder's files those of the repository, in one commit on its main branch; URL of the commit.

    The repository is made when it is absent; files that the folder lacks are not in the new commit. Raises
    ``UsageError``, and ``SetupError`` when the hub cannot be reached or does not allow it.
    """
    address = parse(address) if isinstance(address, str) else address
    if address.revision:
        raise UsageError(f"A push makes a new commit of the main branch: leave out @{address.revision}.")
    files = _plain_files(Path(folder))
    if is_offline():
        raise SetupError(f"Nothing can be pushed to {address}: the network is off (--offline or HF_HUB_OFFLINE).")
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, get_token

    token = get_token()
    if not token:
        raise SetupError(
            f"Nothing can be pushed to {address} without a token: type hf auth login, or set HF_TOKEN to a token of"
            " huggingface.co/settings/tokens that may write."
        )
    with client(address, kind, token) as api:
        api.create_repo(address.repo, repo_type=kind, private=private or None, exist_ok=True)
        before = api.repo_info(address.repo, repo_type=kind)
        if private and not before.private:
            raise UsageError(
                f"{address} is there already and public; nothing is pushed. Make it private in its settings on the hub,"
                " take another name, or leave out --private."
            )
        there = {entry.path for entry in api.list_repo_tree(address.repo, repo_type=kind, recursive=True)}
        done = api.create_commit(
            address.repo,
            [
                *(CommitOperationDelete(name) for name in sorted(there - set(files) - set(ITS_OWN))),
                *(CommitOperationAdd(name, str(path)) for name, path in files.items()),
            ],
            commit_message=message or "Upload with MMMOS",
            repo_type=kind,
            parent_commit=before.sha,
        )
    return str(done.commit_url)


def _plain_files(folder: Path) -> dict[str, Path]:
    """Every file below a folder by its name in the repository. Raises ``UsageError`` for a link, and for no file."""
    if not folder.is_dir():
        raise UsageError(f"There is no folder {str(folder)!r} to push.")
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise UsageError(f"{path} is a link or a device; only plain files are pushed.")
        if path.is_file():
            found[path.relative_to(folder).as_posix()] = path
    if not found:
        raise UsageError(f"There is no file in {str(folder)!r} to push.")
    return found
