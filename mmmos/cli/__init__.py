"""The command line: ``mmmos <noun> <verb>``. Each command parses, calls one function and prints.

Data goes to stdout, everything else to stderr. Exit codes: 0 ok, 1 internal error, 2 usage or recipe error,
3 finished with some inputs rejected, 4 bad input data, 5 environment, 129, 130 and 143 ended by SIGHUP, Ctrl-C and
SIGTERM.
"""

import logging
import os
import shlex
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

from mmmos import __version__, progress
from mmmos.cli import signals
from mmmos.errors import MmmosError, UnknownName, UsageError

if TYPE_CHECKING:
    from cyclopts import App

EPILOGUE = (
    "Options of every command: --offline no network, --progress bar, lines, json or none, --quiet (-q) no progress,"
    " --debug a traceback with every error."
)


def build() -> "App":
    """The application with all its commands."""
    from cyclopts import App, Parameter

    from mmmos.cli import completion, ensembles, features, root, submissions

    app = App(
        name="mmmos",
        help="Predict what people think of audio: manifest → features → ensembles → submissions.",
        help_epilogue=EPILOGUE,
        version=__version__,
        version_format="plaintext",
        default_parameter=Parameter(negative=()),
        suppress_keyboard_interrupt=False,
    )
    for command in root.COMMANDS:
        app.command(command)
    for noun in (features, ensembles, submissions):
        app.command(noun.app)
    app.command(completion.installer(app), name="--install-completion")
    return app


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run one command line and exit with its code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    typed = shlex.join(["mmmos", *arguments])
    debug = _take(arguments, "--debug")
    try:
        form = _progress(arguments)
    except UsageError as error:
        _say(str(error), "error")
        sys.exit(error.exit_code)
    if _take(arguments, "--offline"):
        # Read by huggingface_hub when it is imported, and by worker processes.
        os.environ["HF_HUB_OFFLINE"] = "1"
    # What the hub's client says of its retries is no news: the error that they end in is a sentence.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    if form == "json":
        # Other libraries draw no bars, and what they warn of is logged.
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
        logging.captureWarnings(True)
    _listen_to_warnings()
    progress.show(form)
    # The helpers of multiprocessing tidy up after a process that was killed; nobody needs to be told.
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), "ignore:resource_tracker"]))
    with signals.watched(typed, debug=debug):
        sys.exit(_call(arguments, debug))


def _call(arguments: list[str], debug: bool) -> int:
    """Exit code of a command; every error is a sentence on stderr, with ``debug`` after its traceback."""
    try:
        code = build()(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except KeyboardInterrupt:
        if debug:
            _say(traceback.format_exc(), "traceback")
        return 130
    except BrokenPipeError:
        # The reader of stdout has gone; nothing more can be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            _say(traceback.format_exc(), "traceback")
        code, sentence = _explain(error)
        if not signals.arrived():
            _say(sentence, "error")
        return code


def _explain(error: Exception) -> tuple[int, str]:
    """Exit code and sentence of an error."""
    from cyclopts import CycloptsError

    if isinstance(error, MmmosError):
        return error.exit_code, str(error)
    if isinstance(error, CycloptsError):
        return 2, str(error)
    if isinstance(error, OSError) and error.strerror:
        return 5, f"{error.strerror}: {error.filename or 'no file named'}."
    kind = type(error).__name__
    return 1, (
        f"Internal error: {kind}: {error}\nThis is a fault of MMMOS, not yours. Please report it with the command,"
        " what mmmos doctor says, and the traceback that --debug prints."
    )


def _listen_to_warnings() -> None:
    """Write the warnings of all libraries to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Warning("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


class _Warning(logging.Formatter):
    """A warning as a sentence, or as an object where progress is."""

    def format(self, record: logging.LogRecord) -> str:
        return progress.as_line(super().format(record), record.levelname.lower())


def _progress(arguments: list[str]) -> str:
    """Remove the options of progress; the form that they ask for. Raises ``UsageError``."""
    quiet = _take(arguments, "--quiet") or _take(arguments, "-q")
    asked = _take_value(arguments, "--progress")
    if asked is None:
        return "none" if quiet else "bar"
    if asked not in progress.FORMS:
        raise UnknownName("form of progress", asked, progress.FORMS)
    if quiet and asked != "none":
        raise UsageError(f"--quiet shows no progress, --progress {asked} does; give one of them.")
    return asked


def _take_value(arguments: list[str], option: str) -> str | None:
    """Remove an option and its value that stand before a bare ``--``; the value, "" for none, None without it."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    for place, argument in enumerate(arguments[:end]):
        name, equals, value = argument.partition("=")
        if name == option:
            words = arguments[place : min(place + (1 if equals else 2), end)]
            del arguments[place : place + len(words)]
            return value if equals else "".join(words[1:])
    return None


def _take(arguments: list[str], flag: str) -> bool:
    """Remove a flag that stands before a bare ``--``; whether it was there."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    if flag not in arguments[:end]:
        return False
    arguments.remove(flag)
    return True


def _say(text: str, event: str) -> None:
    sys.stderr.write(progress.as_line(text.rstrip(), event) + "\n")
