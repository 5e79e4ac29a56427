"""Arguments and options that several commands have: each has one name, one meaning and one help text.

What only one command has, or means differently on purpose, is explained in that command's docstring.
"""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

# What is read and written.
Input = Annotated[
    str | Path, Parameter(allow_leading_hyphen=True, help="Manifests, folders, globs, or - for a list on stdin.")
]
Root = Annotated[list[str] | None, Parameter(help="A=B: read paths below A as below B; repeatable.")]
Store = Annotated[str, Parameter(help="The store: a folder, or a URL such as s3://bucket/features.")]
Json = Annotated[bool, Parameter(help="Rows as JSON.")]

# What a challenge is about.
ChallengeFile = Annotated[Path, Parameter(help="The challenge file that names the clips and the features.")]
FeatureRecipe = Annotated[
    str | None, Parameter(help="A feature recipe (name or .toml), or one encoder; with --encoder, the first input.")
]
EncoderNames = Annotated[
    list[str] | None, Parameter(help="An encoder, or one in a file as mine.py:Mine, in place of a recipe; repeatable.")
]
EnsembleRecipe = Annotated[
    str | None, Parameter(help="An ensemble recipe (name or .toml); by default the challenge's own.")
]
Format = Annotated[str, Parameter(help="A submission format (name or .toml).")]

# How something is measured.
Metric = Annotated[str, Parameter(help="utt_SRCC, utt_LCC, utt_KTAU, utt_MSE, or the same with sys_.")]
Intervals = Annotated[int, Parameter(help="Bootstrap resamples of the intervals; 0: no intervals.")]

# How audio is encoded.
Weights = Annotated[
    list[str] | None, Parameter(help="NAME=PATH: weights of an encoder or a feature set, a file or folder; repeatable.")
]
Strict = Annotated[
    bool, Parameter(help="Reject audio that is not what its container promises: truncated, or of another length.")
]

# Where the work runs.
Device = Annotated[str, Parameter(help="Where encoders run: auto, cpu, cuda, cuda:1, mps.")]
TrainingDevice = Annotated[
    str,
    Parameter(help="Where clips are encoded and heads trained: auto, cpu, cuda, cuda:1, mps (heads then on the CPU)."),
]
Jobs = Annotated[int, Parameter(help="Processes; 0: one for each core when it takes long, on a cluster all.")]
Backend = Annotated[Literal["local", "dask", "ray"], Parameter(help="Where they run.")]
Address = Annotated[
    str | None,
    Parameter(help="Of a Dask scheduler or a Ray cluster; without it one is started on this machine."),
]
Shard = Annotated[
    str | None, Parameter(help="i/N: only this part of the work, for one of N machines; auto: as Slurm says.")
]
Logs = Annotated[Path | None, Parameter(help="A folder for a log file of each worker.")]
