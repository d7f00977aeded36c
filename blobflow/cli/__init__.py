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
from collections.abc import Sequence
from importlib import import_module
from typing import cast

import click

from blobflow.errors import BlobflowError, InvalidFile

# Verb → its line in `blobflow --help-all`, in the order in which a user meets them. The verb `x` is `verb` in
# `blobflow/cli/commands/x.py`.
VERBS = {
    "copy": "Copy one image to one or more places.",
    "sync": "Mirror a set of images: each shared blob is moved once.",
    "save": "Save a set of images into one bundle, each blob once.",
    "load": "Bring archives to a registry: one multi-platform image a name.",
    "bundle": "Look into bundles and archives: ls, verify, parts.",
    "nodes": "Point machines at a mirror: containerd, podman, k3s, OpenShift, …",
    "export": "Write one image out: archive, root file system, registry.",
    "plan": "Show what sync would do, and what it would cost.",
    "apply": "Run a plan that `plan --out` saved.",
    "report": "Turn a JSON report into a page or JUnit XML; compare two.",
    "verify": "Ask the targets whether what should be there is.",
    "images": "List the images that deployment files name; lock them.",
    "rewrite": "Replace the images in deployment files by the mirror's.",
    "warm": "Have pull-through caches fetch a set before it is asked for.",
    "inspect": "Show an image: its platforms, digests and layers.",
    "digest": "Print the digest that a name means now.",
    "referrers": "Show what hangs on an image: signatures, SBOMs, attestations.",
    "config": "Show an image's config; show and check blobflow's own.",
    "ls": "List the tags of a repository, the repositories of a HOST.",
    "tags": "List the tags of a repository.",
    "repos": "List the repositories of a registry.",
    "ratelimit": "Show how many pulls a registry still lets through.",
    "push": "Put files as an artifact: registry, layout, archive.",
    "attach": "Attach files to an image: an SBOM, a report, a signature.",
    "pull": "Write the files of an artifact into a folder.",
    "tag": "Put what is at a registry under further tags.",
    "rm": "Remove a tag or an image from a registry.",
    "login": "Try a login at a registry, and keep it.",
    "logout": "Drop a login that is kept.",
    "probe": "Find out what a registry takes, as a profile to configure.",
    "serve": "Run an embedded OCI registry.",
    "worker": "Carry blobs for runs with --engine, at a Dask scheduler.",
    "index": "Make an index by hand: create, annotate, push, inspect, rm.",
    "cache": "Look after the store on disk: ls, du, verify, gc, rm.",
    "bench": "Measure your registries, and which settings suit them.",
    "demo": "See it work: two registries, eight images, no network.",
    "completion": "Print the completion script for bash, zsh or fish.",
    "help": "Explain a topic (references, specs, exit-codes) or a verb.",
}
# Further words for verbs, as another tool has them.
_ALIASES = {"discover": "referrers"}
# What `blobflow --help` shows, which is to fit a small terminal: the first things to type, and the verbs by
# what they are for. A verb that stands in no group is among the last.
_EXAMPLES = (
    ("blobflow copy alpine:3 HOST/alpine:3", "one image, all its platforms"),
    ("blobflow sync mirror.yaml --dry-run", "what a set would cost"),
    ("blobflow sync mirror.yaml", "a set of images, each blob moved once"),
    ("blobflow demo", "see it work, without a network"),
)
_GROUPS = {
    "Move": ("copy", "sync", "plan", "apply", "verify", "warm"),
    "Carry": ("save", "load", "export", "bundle"),
    "Deploy": ("images", "rewrite", "nodes"),
    "Look": ("inspect", "digest", "referrers", "config", "ls", "tags", "repos", "report"),
    "Files": ("push", "attach", "pull"),
    "Change": ("tag", "rm", "index"),
    "Reach": ("login", "logout", "probe", "ratelimit"),
    "Run": ("serve", "worker", "cache", "bench"),
    "Learn": ("demo", "help", "completion"),
}
_EPILOG = (
    "Exit codes: 0 all done, 2 bad usage, 3 some images of a set failed, 4 network, 5 registry, "
    "6 wrong content, 7 unsupported content, 8 storage, 130 interrupted."
)
_ALL = "blobflow.help_all"  # in click's context, which all commands of an invocation share
_HINT = "; set BLOBFLOW_DEBUG=1 to see where, and please report it"


def help_all_option(text: str) -> click.Option:
    """`--help-all`, as an option of a command."""

    def show(context: click.Context, _: click.Parameter, wanted: bool) -> None:
        if wanted and not context.resilient_parsing:
            context.meta[_ALL] = True
            click.echo(context.get_help(), color=context.color)
            context.exit()

    return click.Option(
        ["--help-all"], is_flag=True, is_eager=True, expose_value=False, callback=show, help=text
    )


def shows_all(context: click.Context) -> bool:
    """Whether it is --help-all that is shown."""
    return bool(context.meta.get(_ALL))


class VerbGroup(click.Group):
    """Finds verbs without importing them, and turns what they raise into a sentence and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        verb = _ALIASES.get(cmd_name, cmd_name)
        if verb not in VERBS:
            return None
        command: click.Command = import_module(f"blobflow.cli.commands.{verb}").verb
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-"):
            _check_verb(ctx, tuple(args))
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["blobflow.arguments"] = tuple(args)  # what `options.command_line` gives to reports
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise _unknown_option(error, args) from None

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_usage(ctx, formatter)
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_dl(_EXAMPLES, col_max=40)
        formatter.write_paragraph()
        if shows_all(ctx):
            for title, verbs in verb_groups().items():
                with formatter.section(title):
                    formatter.write_dl([(verb, VERBS[verb]) for verb in verbs])
            self.format_options(ctx, formatter)
            self.format_epilog(ctx, formatter)
        else:
            formatter.write_text(self.help or "")
            formatter.write_paragraph()
            formatter.write_dl([(title, ", ".join(verbs)) for title, verbs in verb_groups().items()])
            formatter.write_paragraph()
            formatter.write_text("blobflow VERB --help explains a verb, blobflow --help-all lists them.")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        click.Command.format_options(self, ctx, formatter)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            usage = _unknown_option(error) if isinstance(error, click.NoSuchOption) else error
            if _log_format(ctx) == "json":
                raise _report_error(ctx, usage.format_message(), usage.exit_code, usage) from None
            raise usage from None
        except BlobflowError as error:
            raise _report_error(ctx, str(error), error.exit_code, error) from None
        except (KeyboardInterrupt, click.Abort) as error:  # Abort: where click asks for something
            raise _report_interruption(ctx, error) from None
        except BrokenPipeError:
            from blobflow.cli.output.stdio import discard_stdout

            discard_stdout()
            raise click.exceptions.Exit(0) from None
        except (click.ClickException, click.exceptions.Exit):
            raise
        except Exception as error:  # noqa: BLE001  a bug of ours: still a sentence, and how to see more
            _report_stdout_failure(ctx, error)
            raise _report_error(
                ctx, f"internal error: {type(error).__name__}: {error}{_HINT}", 1, error
            ) from None


def _report_error(
    context: click.Context, sentence: str, exit_code: int, error: BaseException
) -> click.exceptions.Exit:
    """Say on stderr what went wrong, in one line, or in one for each error of a file; a traceback only when
    BLOBFLOW_DEBUG asks for it.

    Returns what to raise.
    """
    from blobflow.cli.output.stdio import print_lines

    sentences = error.errors if isinstance(error, InvalidFile) else (sentence,)
    if os.environ.get("BLOBFLOW_DEBUG"):
        print_lines(*"".join(traceback.format_exception(error)).splitlines(), err=True)
    if _log_format(context) == "json":
        from blobflow.cli.output.json_events import RunError, print_event

        print_event(RunError(sentence, exit_code))
    else:
        print_lines(*(f"blobflow: {each}" for each in sentences), err=True)
    return click.exceptions.Exit(exit_code)


def _report_interruption(context: click.Context, error: BaseException) -> click.exceptions.Exit:
    """As `_report_error`; also where the signal came while a module was imported, which is broken then."""
    from blobflow.cli.exit_codes import INTERRUPTED

    try:
        return _report_error(context, "interrupted", INTERRUPTED, error)
    except (ImportError, NameError, AttributeError):
        click.echo("blobflow: interrupted", err=True)
        return click.exceptions.Exit(INTERRUPTED)


def _log_format(context: click.Context) -> str:
    from blobflow.cli.options.log_format import log_format

    return log_format(context)


def _report_stdout_failure(context: click.Context, error: BaseException) -> None:
    """Raise what ends the process with a sentence, where stdout took no more of what click writes itself, as
    the text of --help."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if isinstance(error, OSError) and frames[-1].f_code is click.echo.__code__:
        from blobflow.cli.output.stdio import stdout_error

        lost = stdout_error(error)
        raise _report_error(context, str(lost), lost.exit_code, error) from None


def verb_groups() -> dict[str, list[str]]:
    """The verbs by the title of their group."""
    groups = {title: [verb for verb in verbs if verb in VERBS] for title, verbs in _GROUPS.items()}
    grouped = {verb for verbs in groups.values() for verb in verbs}
    more = [verb for verb in VERBS if verb not in grouped]
    return {**groups, "More": more} if more else groups


def _check_verb(context: click.Context, words: tuple[str, ...]) -> None:
    """Fail for a verb that is not ours; with what it is called here, if it is another tool's."""
    if words[0] in _ALIASES:
        return
    if words[0] in VERBS and (words[0] != "tag" or words[1:2] not in (("ls",), ("list",), ("delete",))):
        return  # `tag ls` is regctl's, and would be an image of that name
    from blobflow.cli.output.other_tools import find_verb

    verb, ours = find_verb(words)
    context.fail(f"No such verb {verb!r}.{f' In blobflow: {ours}.' if ours else _did_you_mean(verb)}")


def _did_you_mean(word: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(word, VERBS, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _unknown_option(error: click.NoSuchOption, words: Sequence[str] = ()) -> click.UsageError:
    """The error with what blobflow has in place of another tool's option. `words` are a command line that has
    its option before its verb, as skopeo takes some."""
    from blobflow.cli.output.other_tools import option_sentence

    context, option = error.ctx, error.option_name
    verb = context.info_name if context is not None and context.parent is not None else None
    if verb is None and (after := next((word for word in words if word in VERBS), "")):
        command = cli.get_command(click.Context(cli), after)
        if command is not None and any(option in parameter.opts for parameter in command.params):
            return click.UsageError(f"{option} goes after the verb: blobflow {after} {option} …", context)
    if ours := option_sentence(verb or "", option):
        return click.UsageError(f"No such option {option!r}. In blobflow: {ours}.", context)
    return error


class _Version:
    """The version of blobflow, which is imported only where it is printed."""

    def __str__(self) -> str:
        from blobflow.version import __version__

        return __version__


@click.group(
    cls=VerbGroup,
    params=[help_all_option("List the verbs with a line each, and exit.")],
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
    from blobflow.cli.runtime.startup import prepare_imports

    prepare_standard_streams()
    prepare_imports()
    try:
        cli(prog_name="blobflow")
    except OSError as error:
        try:
            _report_stdout_failure(click.Context(cli), error)
        except click.exceptions.Exit as ended:
            sys.exit(ended.exit_code)
        raise
