"""What ``--help`` says of options: every one is explained, and one that several commands share says it in all."""

from collections import defaultdict
from typing import get_args

from mmmos import cli
from mmmos.cli import ablation, shift
from mmmos.cli.options import Backend
from mmmos.demo.plan import SIZES
from mmmos.metrics import UNITS
from mmmos.parallel.places import BACKENDS
from mmmos.pipeline.ablation import TABLES as ABLATION_TABLES
from mmmos.pipeline.shift import TABLES as SHIFT_TABLES
from mmmos.statistics.intervals import METHODS

# What commands call by one name and mean differently, as the texts say.
DIFFERENT = {
    *("--bundle", "--challenge", "--clips", "--device", "--dry-run", "--format", "--intervals", "--jobs", "--json"),
    *("--k", "--metric", "--on", "--overwrite", "--recipe", "--seed", "--store", "--table", "--to", "--weights"),
}


def arguments(app, words=()):
    """(command, argument) of everything that the commands below an application take."""
    for name in app:
        if name in ("--help", "-h", "--version"):
            continue
        below = app[name]
        if below.default_command is not None:
            for argument in below.assemble_argument_collection(parse_docstring=True):
                yield " ".join((*words, name)), argument
        yield from arguments(below, (*words, name))


ARGUMENTS = list(arguments(cli.build()))


def test_every_argument_is_explained():
    assert len(ARGUMENTS) > 100
    assert not [(command, argument.name) for command, argument in ARGUMENTS if not argument.parameter.help]


def test_an_option_of_several_commands_says_the_same_in_each():
    texts = defaultdict(set)
    for _, argument in ARGUMENTS:
        if argument.name.startswith("--"):
            texts[argument.name].add(argument.parameter.help)
    assert {name for name, found in texts.items() if len(found) > 1} == DIFFERENT


def test_choices_are_those_of_the_code():
    choices = {(command, argument.name): set(argument.get_choices() or ()) for command, argument in ARGUMENTS}
    assert set(get_args(get_args(Backend)[0])) == choices["run", "--backend"] == set(BACKENDS)
    assert set(get_args(ablation.Table)) == choices["ensembles ablate", "--table"] == set(ABLATION_TABLES)
    assert set(get_args(shift.Table)) == choices["ensembles shift", "--table"] == set(SHIFT_TABLES)
    assert choices["evaluate", "--method"] == set(METHODS) and choices["evaluate", "--unit"] == set(UNITS)
    assert choices["demo", "--size"] == set(SIZES)
