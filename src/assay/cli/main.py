"""`assay`: the commands by name, and what a failure looks like."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from cyclopts import App, CycloptsError

from assay.errors import AssayError

__all__ = ["COMMANDS", "main"]

COMMANDS: Mapping[str, str] = {
    "search": "assay.cli.search:search",
    "audit": "assay.cli.audit:audit",
    "resume": "assay.cli.search:resume",
    "report": "assay.cli.reading:report",
    "show": "assay.cli.reading:show",
    "spaces": "assay.cli.listing:spaces",
    "tasks": "assay.cli.listing:tasks",
    "options": "assay.cli.options:options",
    "doctor": "assay.cli.doctor:doctor",
}
"""Name -> "module:function", imported on use."""

_SPINS = "5000"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 if it did, 2 for what the user can mend, 130 if interrupted."""
    _wait_briefly()
    app = App(
        name="assay",
        help="Find a network for your task, device and limits, and see what it cost.",
        version_flags=[],
        suppress_keyboard_interrupt=False,  # what to type to continue is ours to say
    )
    app.command(_version, name="--version")
    for name, target in COMMANDS.items():
        app.command(target, name=name, help=_HELP[name])
    try:
        app(
            list(sys.argv[1:] if arguments is None else arguments),
            exit_on_error=False, print_error=False,
        )  # fmt: skip
        sys.stdout.flush()
    except (AssayError, CycloptsError) as error:
        print(f"assay: {_one_line(error)}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # whoever read our output has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:  # a folder that cannot be read or written, a full disk
        print(f"assay: {_one_line(error)}; mend it, or give another folder", file=sys.stderr)
        sys.exit(2)
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        said = ". ".join(_one_line(error).split(". ")[:2]).rstrip(".")  # of torch's ten sentences
        fix = "lower recipe.batch_size or estimator.batch by --set, in a new folder"
        print(f"assay: {said}; {fix}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as stop:
        print(f"\nassay: stopped. {stop or ''}".rstrip(), file=sys.stderr)
        sys.exit(130)


_HELP = {
    "search": "Search, train and hand back a network; `assay search` alone does it on digits.",
    "audit": "Tell how far to trust each estimator on a task, and what it costs there.",
    "resume": "Continue a search or an audit that was stopped or killed.",
    "report": "Write the report of a study again and say where it is.",
    "show": "Show the winner and the costs of a study, or the table of an audit.",
    "spaces": "List the ready spaces.",
    "tasks": "List the ready tasks.",
    "options": "List what can be set of an estimator, strategy, space or task.",
    "doctor": "Say whether this machine is ready, and what to install if not.",
}


def _wait_briefly() -> None:
    """Let torch's threads give way soon when they wait for each other, unless the user says how.

    They meet after every operation. By the default of GCC's OpenMP, which reads this when torch is
    loaded, one that waits keeps its core for milliseconds, though the other may need just that core
    because a third process has taken one: every operation then takes as long.
    """
    if not os.environ.keys() & {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}:
        os.environ["GOMP_SPINCOUNT"] = _SPINS


def _version() -> None:
    """Show the version."""
    from importlib.metadata import version

    print(version("assay"))


def _is_out_of_memory(error: RuntimeError) -> bool:
    torch = sys.modules.get("torch")  # whoever has not loaded it cannot have raised this
    return torch is not None and isinstance(error, torch.OutOfMemoryError)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
