"""codes.md and licences.md: what commands end with, what audio is refused for, what is read, and under which terms."""

import inspect
import tomllib
from collections.abc import Iterator
from pathlib import Path

from markdown import code, first_sentence, page, table, with_options
from registered import built_in, yes
from shelves import packaged

from mmmos import audio, errors, recipe
from mmmos.features.spec import FeatureRecipe

LICENCES = Path(__file__).parent.parent / "licences.toml"

EXITS = {
    "0": "ok",
    "1": "internal error: a fault of MMMOS",
    "2": "usage or recipe error",
    "3": "finished, some inputs rejected",
    "4": "bad input data",
    "5": "environment: weights missing offline, no device, an extra that is not installed",
    "129, 130, 143": "ended by SIGHUP, Ctrl-C, SIGTERM; the same command goes on from there",
}

STATUS = {
    "done": "its embeddings are stored",
    "rejected": "it cannot be used, with a reason",
    "failed": "something went wrong in processing it, with a reason",
    "absent": "still to be computed, as `mmmos features show` has it",
}

VARIABLES = {
    "MMMOS_CACHE": "folder for copies of stores at URLs; by default the user's cache",
    "HF_HUB_OFFLINE": "1: no network, as `--offline`",
    "HF_HOME": "folder of the hub's cache, where weights and pulled bundles lie",
    "HF_ENDPOINT": "another hub than huggingface.co",
    "HF_TOKEN": "token for private repositories and for pushing; by default that of `hf auth login`",
    "SLURM_CPUS_PER_TASK": "cores that a task may use",
    "SLURM_ARRAY_TASK_ID, …_MIN, …_MAX, …_STEP, …_COUNT": "which part of the work `--shard auto` is, in a job array",
    "SLURM_PROCID, SLURM_NTASKS": "the same in a step of several tasks",
    "SLURM_LOCALID, SLURM_NODEID, SLURM_STEP_TASKS_PER_NODE": "which of a node's GPUs a task takes",
    "SLURM_GPUS_PER_TASK, SLURM_TRES_PER_TASK, SLURM_GPU_BIND": "Slurm deals out GPUs: a task takes all that it sees",
    "CUDA_VISIBLE_DEVICES": "the GPUs that are seen",
}


def codes() -> str:
    """The page of codes."""
    head = """\
How commands end, what becomes of a clip and why, and what MMMOS reads from its environment. Codes are stable names for
programs; the words beside them are what people are shown."""
    reasons = [
        (code(name), "failed" if name in audio.FAILED else "rejected", yes(name in audio.TRANSIENT), with_options(text))
        for name, text in audio.REASONS.items()
    ]
    return page(
        "Codes",
        head,
        "## Exit codes",
        table(("exit code", "meaning"), [(code(number), meaning) for number, meaning in EXITS.items()]),
        "## Errors",
        "Every error of `mmmos.errors` is a sentence for the user; `mmmos.MmmosError` is the base of all.",
        table(("error", "exit code", "meaning"), error_rows()),
        "## Status of a clip",
        table(("status", "meaning"), [(code(name), meaning) for name, meaning in STATUS.items()]),
        "## Reasons",
        """\
Why a clip was not used. The next run tries again what may not hold the next time; the rest is stored and tried again
with `mmmos features extract --retry-rejected` alone. See [audio](../guide/audio.md).""",
        table(("reason", "status", "tried again", "meaning"), reasons),
        "## Flags",
        "What to know of a clip that was used nevertheless.",
        table(("flag", "meaning"), [(code(name), text) for name, text in audio.FLAGS.items()]),
        "## Environment variables",
        table(
            ("variable", "meaning"),
            [(", ".join(map(code, names.split(", "))), meaning) for names, meaning in VARIABLES.items()],
        ),
    )


def error_rows() -> Iterator[tuple[str, str, str]]:
    """The classes of errors, with the exit code of a command that ends in one."""
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, errors.MmmosError):
            ends = "" if kind in (errors.MmmosError, errors.Rejected) else str(kind.exit_code)
            yield code(name), ends, first_sentence(inspect.getdoc(kind) or "")


def licences() -> str:
    """The page of licences."""
    head = """\
MMMOS is under the MIT licence; what it loads keeps its own. Licences of packages are SPDX expressions from their
metadata, those of weights what their publishers say."""
    packages = tomllib.loads(LICENCES.read_text(encoding="utf-8"))
    return page(
        "Licences",
        head,
        "## Packages",
        "Installed with MMMOS; the wheels of soundfile also hold libsndfile, LGPL-2.1-or-later:",
        table(("package", "licence"), packages["core"].items()),
        "Installed by extras:",
        table(("package", "licence"), packages["extras"].items()),
        "## Weights",
        "Fetched when an encoder is asked for; MMMOS contains none. [Encoders](encoders.md) says from where.",
        table(("licence", "commercial use", "encoders"), weight_rows()),
        "## Feature recipes",
        "What is trained on a recipe's features needs its encoders to score new audio.",
        table(("recipe", "encoders that forbid commercial use"), recipe_rows()),
    )


def weight_rows() -> Iterator[tuple[str, str, str]]:
    """The licences of weights, those first that allow commercial use."""
    cards = [card for card in built_in("encoders").values() if card.weights]
    for commercial, licence in sorted({(card.commercial, card.licence) for card in cards}, reverse=True):
        names = [code(card.name) for card in cards if (card.commercial, card.licence) == (commercial, licence)]
        yield licence, yes(commercial), ", ".join(names)


def recipe_rows() -> Iterator[tuple[str, str]]:
    """Packaged feature recipes with their non-commercial encoders."""
    cards = built_in("encoders")
    for path in packaged("features"):
        names = [each.encoder for each in recipe.read(path, FeatureRecipe).tables()]
        yield code(path.stem), ", ".join(code(name) for name in names if not cards[name].commercial) or "none"
