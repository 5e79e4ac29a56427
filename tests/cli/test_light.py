"""What commands load: none loads torch that computes nothing with it, and a mistake loads no more than ``--help``."""

import json
import subprocess
import sys

HELP = {"torch", "pandas", "numpy", "scipy", "sklearn", "pydantic", "librosa", "numba", "transformers", "soundfile"}
TABLES = {"torch", "sklearn", "librosa", "transformers", "nnAudio"}

# Each group loads none of its modules; the first ones come first, since modules stay loaded.
GROUPS = [
    (
        HELP,
        [
            "--version",
            "features extract --help",
            "score --help",
            "rnu",
            "run --jbos 2",
            "run --jobs two",
            "run --backend dusk",
            "score audio",
            "features extract",
            "features fetch",
            "run --address tcp://head:8786",
            "--install-completion --shell bash",
        ],
    ),
    (HELP - {"pydantic"}, ["init NEW"]),
    (
        TABLES,
        [
            "run nowhere.toml",
            "features extract melstat dev.csv",
            "features extract melstats dve.csv",
            "features list",
            "features show",
            "features show melstats dev.csv",
            "features show --manifest dev.csv",
            "features verify",
            "submissions formats",
            "submissions check submissions/demo --clips test.csv",
            "evaluate submissions/demo/answer.txt test.csv --intervals 10",
            "submissions leaderboard submissions/demo/answer.txt --truth test.csv --intervals 0",
            "score nowhere --bundle demo",
            "score audio --bundle dmeo",
            "ensembles show quikc",
        ],
    ),
    ({"torch", "nnAudio", "librosa", "transformers"}, ["run --dry-run", "ensembles show --intervals 0"]),
]

SCRIPT = """
import contextlib, io, json, sys
from mmmos import cli
found = []
for modules, lines in json.loads(sys.argv[1]):
    for line in lines:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            code = cli._call(line.split(), debug=False)
        found.append((line, code, sorted(set(modules) & set(sys.modules))))
print(json.dumps(found))
"""


def test_commands_load_what_they_compute_with(workspace, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    told = json.dumps([(sorted(modules), lines) for modules, lines in GROUPS]).replace("NEW", str(tmp_path / "new"))
    done = subprocess.run([sys.executable, "-c", SCRIPT, told], cwd=workspace, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    found = json.loads(done.stdout)
    assert [line for line, code, _ in found if code == 1] == []
    assert {line: modules for line, _, modules in found if modules} == {}
