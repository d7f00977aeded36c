"""Logins as a user gives them. Nothing here echoes one, and there is always a way that leaves it out of the
process list: a file, the environment, stdin or the terminal."""

from __future__ import annotations

import sys

import click

from blobflow.errors import UsageError
from blobflow.transports.registry.auth import credentials
from blobflow.transports.registry.auth.credentials import Credentials


def parse_login(text: str, option: str) -> Credentials:
    """As `credentials.parse_login`; a password that is missing is asked for on the terminal."""
    instead = f"{option} @FILE, with USER:PASSWORD in it"
    return credentials.parse_login(
        text, option, lambda username: prompt(f"Password of {username}", hidden=True, instead=instead)
    )


def prompt(question: str, *, hidden: bool, instead: str) -> str:
    """What is typed on the terminal. Raises UsageError where there is none: then give `instead`."""
    if not sys.stdin.isatty():
        raise UsageError(f"{question}: there is no terminal to ask on; give {instead}")
    answer: str = click.prompt(question, hide_input=hidden, err=True)
    return answer


def read_password() -> str:
    """All of stdin but the line's end. Raises UsageError if nothing is left."""
    password = sys.stdin.read().rstrip("\r\n")
    if not password:
        raise UsageError("--password-stdin: stdin is empty")
    return password
