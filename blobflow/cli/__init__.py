"""The `blobflow` command: finds a verb, runs it, and turns errors into a sentence and an exit code.

What a run *does* is decided in `blobflow.client`; here words become values and values become words. The
folders, each of which imports only those before it:

    options/    options that verbs share, each group read into one frozen value
    output/     progress, results as text, JSON and HTML, the standard streams
    runtime/    the process around a run: event loop, signals, files, schedule, metrics
    inputs/     what people write to say what they want: specs, lists, archives, templates
    *.py        what verbs share of a run: settings, expanding a request, dry runs, running with a report
    commands/   one module a verb, imported when the verb is called

A new verb is a module in `commands` and its line in `VERBS`. `blobflow --help` pays for what this module
imports at its top: click and the error tree, nothing else.

Results (figures, plans, manifests) go to stdout; what happens meanwhile and what failed to stderr.
"""

from __future__ import annotations

import os
import sys
import traceback
from importlib import import_module
from typing import cast

import click

from blobflow.errors import BlobflowError

# Verb → its line in `blobflow --help`, in the order in which a user meets them. The verb `x` is `verb` in
# `blobflow/cli/commands/x.py`.
VERBS = {
    "copy": "Copy one image to one or more places.",
    "sync": "Mirror a set of images: each shared blob is moved once.",
    "save": "Save a set of images into one bundle, each blob once.",
    "load": "Bring archives to a registry: one multi-platform image a name.",
    "bundle": "Look into bundles and archives: ls, verify, parts.",
    "export": "Write one image out: archive, root file system, registry.",
    "plan": "Show what sync would do, and what it would cost.",
    "apply": "Run a plan that `plan --out` saved.",
    "verify": "Ask the targets whether what should be there is.",
    "warm": "Have pull-through caches fetch a set before it is asked for.",
    "inspect": "Show an image: its platforms, digests and layers.",
    "tags": "List the tags of a repository.",
    "repos": "List the repositories of a registry.",
    "tag": "Put what is at a registry under further tags.",
    "rm": "Remove a tag or an image from a registry.",
    "login": "Try a login at a registry, and keep it.",
    "logout": "Drop a login that is kept.",
    "probe": "Find out what a registry takes, as a profile to configure.",
    "serve": "Run an embedded OCI registry.",
    "index": "Make an index by hand: create, annotate, push, inspect, rm.",
    "cache": "Look after the store on disk: ls, du, verify, gc, rm.",
    "bench": "Measure your registries, and which settings suit them.",
    "demo": "See it work: two registries, eight images, no network.",
    "completion": "Print the completion script for bash, zsh or fish.",
    "help": "Explain a topic (references, specs, exit-codes) or a verb.",
}
_EPILOG = (
    "Exit codes: 0 all done, 2 bad usage, 3 some images of a set failed, 4 network, 5 registry, "
    "6 wrong content, 7 unsupported content, 8 storage, 130 interrupted."
)
_HINT = "; set BLOBFLOW_DEBUG=1 to see where, and please report it"


class VerbGroup(click.Group):
    """Finds verbs without importing them, and turns what they raise into a sentence and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = import_module(f"blobflow.cli.commands.{cmd_name}").verb
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            ctx.fail(f"No such verb {args[0]!r}.{_did_you_mean(args[0])}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BlobflowError as error:
            raise _report_error(ctx, str(error), error.exit_code, error) from None
        except KeyboardInterrupt as error:
            from blobflow.cli.exit_codes import INTERRUPTED

            raise _report_error(ctx, "interrupted", INTERRUPTED, error) from None
        except BrokenPipeError:
            from blobflow.cli.output.stdio import discard_stdout

            discard_stdout()
            raise click.exceptions.Exit(0) from None
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:  # noqa: BLE001  a bug of ours: still a sentence, and how to see more
            _report_stdout_failure(ctx, error)
            raise _report_error(
                ctx, f"internal error: {type(error).__name__}: {error}{_HINT}", 1, error
            ) from None


def _report_error(
    context: click.Context, sentence: str, exit_code: int, error: BaseException
) -> click.exceptions.Exit:
    """Say on stderr, in one line, what went wrong; a traceback only when BLOBFLOW_DEBUG asks for it.

    Returns what to raise.
    """
    from blobflow.cli.options.log_format import log_format
    from blobflow.cli.output.stdio import print_lines

    if os.environ.get("BLOBFLOW_DEBUG"):
        print_lines(*"".join(traceback.format_exception(error)).splitlines(), err=True)
    if log_format(context) == "json":
        import json

        told = {"event": "error", "message": sentence, "exit_code": exit_code}
        click.echo(json.dumps(told), err=True)
    else:
        print_lines(f"blobflow: {sentence}", err=True)
    return click.exceptions.Exit(exit_code)


def _report_stdout_failure(context: click.Context, error: BaseException) -> None:
    """Raise what ends the process with a sentence, where stdout took no more of what click writes itself, as
    the text of --help."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if isinstance(error, OSError) and frames[-1].f_code is click.echo.__code__:
        from blobflow.cli.output.stdio import stdout_error

        lost = stdout_error(error)
        raise _report_error(context, str(lost), lost.exit_code, error) from None


def _did_you_mean(word: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(word, VERBS, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


class _Version:
    """The version of blobflow, which is imported only where it is printed."""

    def __str__(self) -> str:
        from blobflow.version import __version__

        return __version__


@click.group(
    cls=VerbGroup,
    epilog=_EPILOG,
    subcommand_metavar="VERB [ARGS]...",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(cast("str", _Version()), message="blobflow %(version)s")
def cli() -> None:
    """Move sets of multi-arch container images between registries: planned, deduplicated, verified."""


def main() -> None:
    """Entry point of the `blobflow` command."""
    from blobflow.cli.runtime.standard_streams import prepare_standard_streams

    prepare_standard_streams()
    try:
        cli(prog_name="blobflow")
    except OSError as error:
        try:
            _report_stdout_failure(click.Context(cli), error)
        except click.exceptions.Exit as ended:
            sys.exit(ended.exit_code)
        raise
