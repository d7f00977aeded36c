"""`blobflow report`: what can be done with the JSON reports that runs wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from blobflow.cli.inputs.report_file import read_report
from blobflow.cli.options.option_group import OnceOption
from blobflow.cli.options.param_types import FILE
from blobflow.cli.output.stdio import ignore_closed_pipe, print_lines, write_stdout
from blobflow.cli.runtime.files import check_writable, write_atomic
from blobflow.cli.verb import VerbFamily
from blobflow.errors import UsageError

if TYPE_CHECKING:
    from blobflow.cli.output.report_files import ReportForm

_DIFFERENT = 1
_file_argument = click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
_out_option = click.option(
    "-o", "--out", cls=OnceOption, type=FILE, metavar="FILE", help="Write it there. [default: stdout]"
)


@click.group("report", cls=VerbFamily)
def verb() -> None:
    """Show, turn into other forms and compare the reports that `--report FILE.json` wrote."""


@verb.command("show", short_help="Print the summary that the run printed.")
@_file_argument
def show(file: Path) -> None:
    """Print the summary of a report: what the run printed when it ended, and what failed."""
    from blobflow.cli.output.report_text import digest_lines, failure_lines, run_lines, summary_lines

    report = read_report(file)
    with ignore_closed_pipe():
        print_lines(*run_lines(report), *digest_lines(report), *summary_lines(report), *failure_lines(report))


@verb.command("html", short_help="Make a page for people of a JSON report.")
@_file_argument
@_out_option
def html(file: Path, out: Path | None) -> None:
    """Make a page for people of a JSON report.

    The page that the run itself wrote (`--report FILE.html`) also has the timeline and what the images share,
    which is not in the JSON report.
    """
    _convert(file, "html", out)


@verb.command("junit", short_help="Make JUnit XML for CI systems of a JSON report.")
@_file_argument
@_out_option
def junit(file: Path, out: Path | None) -> None:
    """Make JUnit XML of a JSON report, as `--report FILE.xml` writes it: a test case an image and target."""
    _convert(file, "junit", out)


@verb.command("diff", short_help="Compare two JSON reports.")
@click.argument("before", type=click.Path(path_type=Path), metavar="BEFORE")
@click.argument("after", type=click.Path(path_type=Path), metavar="AFTER")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.option("--exit-code", is_flag=True, help="End with 1 if there is a difference.")
def diff(before: Path, after: Path, as_json: bool, exit_code: bool) -> None:
    """Compare two JSON reports: which images fail now, are mended, changed, came or went; and the totals.

    Totals are printed, and make no difference: --exit-code is about images alone.
    """
    from blobflow.engine.results.difference import compare_reports

    if str(before) == str(after) == "-":
        raise UsageError("only one of two reports can come from stdin")
    old, new = read_report(before), read_report(after)
    difference = compare_reports(old, new)
    with ignore_closed_pipe():
        if as_json:
            from blobflow.cli.output.json_documents import difference_document

            write_stdout(json.dumps(difference_document(difference, old, new), indent=2))
        else:
            from blobflow.cli.output.difference_text import difference_lines

            print_lines(*difference_lines(difference, old, new))
    if exit_code and difference.differs:
        raise click.exceptions.Exit(_DIFFERENT)


@verb.command("schema", short_help="Print the JSON schema of reports, or of events.")
@click.argument("what", type=click.Choice(["report", "events"]), default="report")
def schema(what: str) -> None:
    """Print the JSON schema of reports, or of the lines that --log-format json writes."""
    from blobflow.cli.output.json_schemas import events_schema, report_schema

    write_stdout(json.dumps(report_schema() if what == "report" else events_schema(), indent=2))


def _convert(file: Path, form: ReportForm, out: Path | None) -> None:
    from blobflow.cli.output.report_files import render_report

    if out is not None:
        check_writable(out, "--out")
    report = read_report(file)
    if out is not None:
        write_atomic(out, render_report(report, form))
    else:
        with ignore_closed_pipe():
            write_stdout(render_report(report, form), nl=False)
