"""`blobflow help`: topics that are about all verbs, and what --help says of one."""

from __future__ import annotations

import click

from blobflow.cli.output.help_topics import TOPICS
from blobflow.cli.output.stdio import write_stdout
from blobflow.cli.verb import Verb
from blobflow.errors import UsageError


@click.command("help", cls=Verb)
@click.argument("topic", required=False, metavar="[TOPIC|VERB]")
@click.pass_context
def verb(context: click.Context, topic: str | None) -> None:
    """Explain a topic, or a verb. Without one, list the topics.

    \b
      blobflow help references
      blobflow help specs
      blobflow help exit-codes
    """
    root = context.find_root()
    door = root.command
    assert isinstance(door, click.Group)
    if topic is None:
        width = max(map(len, TOPICS))
        write_stdout("\n".join(f"{name:<{width}}  {each.line}" for name, each in TOPICS.items()))
        write_stdout("\n`blobflow help VERB` is `blobflow VERB --help`; `blobflow --help` lists the verbs.")
    elif topic in TOPICS:
        write_stdout(TOPICS[topic].text, nl=False)
    elif (command := door.get_command(root, topic)) is not None:
        write_stdout(command.get_help(click.Context(command, info_name=topic, parent=root)))
    else:
        raise UsageError(f"no topic or verb {topic!r}; the topics are {', '.join(TOPICS)}")
