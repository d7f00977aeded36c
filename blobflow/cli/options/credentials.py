"""Logins as a user gives them.

Nothing here echoes a password, and each has a way that keeps it out of the process list: a file, the
environment, stdin or the terminal.
"""

from __future__ import annotations

import sys

import click

from blobflow.errors import UsageError
from blobflow.transports.registry.auth import credentials
from blobflow.transports.registry.auth.credentials import Credentials


def parse_login(text: str, option: str) -> Credentials:
    """As `parse_login` of the registry transport; prompts for a missing password on the terminal."""
    instead = f"{option} @FILE, with USER:PASSWORD in it"
    return credentials.parse_login(
        text, option, lambda username: prompt(f"Password of {username}", hidden=True, instead=instead)
    )


def join_login(
    username: str | None, password: str | None, side: str, other: Credentials | None
) -> Credentials:
    """The login of skopeo's two options for it. Raises UsageError for half of one, and for two logins."""
    if username is None or password is None:
        have, lack = ("username", "password") if password is None else ("password", "username")
        raise UsageError(f"the {side}'s {have} goes with its {lack}; or give both as --creds @FILE has them")
    if other is not None:
        raise UsageError(f"the {side}'s login is given twice; give it once")
    if not username or ":" in username:
        raise UsageError(f"the {side}'s username is empty or has a colon in it")
    return Credentials(username, password)


def prompt(question: str, *, hidden: bool, instead: str) -> str:
    """What the user types on the terminal. Raises UsageError without one, which says to give `instead`."""
    if not sys.stdin.isatty():
        raise UsageError(f"{question}: there is no terminal to ask on; give {instead}")
    answer: str = click.prompt(question, hide_input=hidden, err=True)
    return answer


def read_password() -> str:
    """All of stdin without its last line end. Raises UsageError if that is empty."""
    password = sys.stdin.read().rstrip("\r\n")
    if not password:
        raise UsageError("--password-stdin: stdin is empty")
    return password
