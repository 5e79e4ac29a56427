"""What commands take besides plain options."""

import pytest

from mmmos.cli.inputs import paths_by_name, refuse_options
from mmmos.errors import UsageError


def test_weights_are_pairs_of_name_and_path():
    assert paths_by_name(None) == {}
    assert paths_by_name(["a=b", "c=d=e"]) == {"a": "b", "c": "d=e"}
    for lacking in ("path", "=path", "name="):
        with pytest.raises(UsageError, match="NAME=PATH"):
            paths_by_name([lacking])


def test_a_mistyped_option_is_no_input(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-kept.wav").touch()

    def command(*inputs, dry_run=False):
        """Some command."""

    refuse_options(["-", "a.wav", "-kept.wav"], command)
    with pytest.raises(UsageError, match=r"Unknown option: --dry-rum\. Did you mean --dry-run\?"):
        refuse_options(["--dry-rum"], command)


def test_a_list_on_standard_input_is_extracted(command, monkeypatch, workspace):
    import io
    import sys

    path = next((workspace / "audio").iterdir())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f'{{"path": "{path}"}}\n'.encode())))
    code, _, err = command("features", "extract", "melstats", "-")
    assert (code, "1 of 1 clips are in features/" in err) == (0, True), err
