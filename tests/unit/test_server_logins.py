"""Who may come in: the htpasswd file, the header, and how often the slow check runs."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Iterator

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blobflow.errors import InvalidConfig
from blobflow.server import logins
from blobflow.server.logins import Logins, parse_htpasswd, read_basic
from blobflow.server.refusal import Refusal

HASH = bcrypt.hashpw(b"s3cret", bcrypt.gensalt(4))


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


class Counted:
    """The slow check, counted by hash; `gate` holds it back."""

    def __init__(self) -> None:
        self.hashes: list[bytes] = []
        self.threads: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, password: bytes, hashed: bytes) -> bool:
        self.gate.wait(30)
        self.hashes.append(hashed)
        self.threads.add(threading.current_thread().name)
        return bcrypt.checkpw(password, hashed)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    counted = Counted()
    monkeypatch.setattr(logins, "_matches", counted)
    return counted


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def users(clock: Clock) -> Iterator[Logins]:
    made = Logins({"ann": HASH}, clock=clock)
    yield made
    made.close()


async def refused(users: Logins, authorization: str | None) -> str:
    with pytest.raises(Refusal) as caught:
        await users.check(authorization)
    return caught.value.code


# The file


@pytest.mark.parametrize("variant", ["2a", "2b", "2y"])
async def test_every_spelling_of_bcrypt_lets_in(variant: str) -> None:
    text = f"# us\n\nann:{HASH.decode().replace('2b', variant, 1)}\nbob:{HASH.decode()}\n"
    users = Logins(parse_htpasswd(text, "htpasswd"))
    await users.check(basic("ann", "s3cret"))
    await users.check(basic("bob", "s3cret"))
    assert await refused(users, basic("ann", "secret")) == "UNAUTHORIZED"
    users.close()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ann", "line 2 is not `user:hash`"),
        (":" + HASH.decode(), "line 2 is not `user:hash`"),
        ("ann:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "line 2 has no bcrypt hash"),
        ("ann:$apr1$abcdefgh$0123456789012345678901", "line 2 has no bcrypt hash"),
        ("ann:" + HASH.decode()[:-1], "line 2 has no bcrypt hash"),
        ("ann:" + HASH.decode().replace("$04$", "$18$"), "line 2 has no bcrypt hash"),
        ("ann:" + HASH.decode().replace("$04$", "$03$"), "line 2 has no bcrypt hash"),
        ("ann:$2b$04$" + "z" * 53, "line 2 has no bcrypt hash"),
        (f"ann:{HASH.decode()}\nann:{HASH.decode()}", "line 3 has a user that is there already"),
        ("", "has no user"),
    ],
)
def test_a_file_that_can_not_be_used_is_told_by_line_and_without_its_hash(line: str, said: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        parse_htpasswd(f"# logins\n{line}\n", "F")
    assert caught.value.message.startswith("F ")
    assert said in caught.value.message
    assert line.partition(":")[2] not in caught.value.message or ":" not in line


# The header


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Basic",
        "Basic ",
        "Basic !!!",
        "Bearer abc",
        "Basic " + base64.b64encode(b"ann").decode(),
        "Basic " + base64.b64encode(b"\xff\xfe:x").decode(),
        "Basic " + base64.b64encode(b"ann:" + b"x" * 5000).decode(),
        "Basic é",
    ],
)
async def test_a_header_that_holds_no_login_costs_no_check(
    users: Logins, counted: Counted, header: str | None
) -> None:
    assert await refused(users, header) == "UNAUTHORIZED"
    assert counted.hashes == []


@given(st.text())
def test_any_header_is_a_login_or_none(header: str) -> None:
    assert read_basic(header) is None
    assert read_basic(f"Basic {header}") is None or ":" in base64.b64decode(header).decode("latin-1")


@given(st.text().filter(lambda user: ":" not in user), st.text())
def test_what_a_client_encodes_is_read(user: str, password: str) -> None:
    assert read_basic(basic(user, password)) == (user, password.encode())


# The check


async def test_a_right_login_is_checked_once_a_minute(users: Logins, counted: Counted, clock: Clock) -> None:
    for _ in range(100):
        await users.check(basic("ann", "s3cret"))
    assert len(counted.hashes) == 1
    clock.now += logins.REMEMBERED_SECONDS
    await users.check(basic("ann", "s3cret"))
    assert len(counted.hashes) == 2


async def test_a_right_login_that_comes_many_times_at_once_is_checked_once(
    users: Logins, counted: Counted
) -> None:
    await asyncio.gather(*(users.check(basic("ann", "s3cret")) for _ in range(100)))
    assert len(counted.hashes) == 1


async def test_the_check_runs_in_a_thread_of_its_own(users: Logins, counted: Counted) -> None:
    await users.check(basic("ann", "s3cret"))
    assert [name.rpartition("_")[0] for name in counted.threads] == ["blobflow-login"]


async def test_a_wrong_login_is_never_remembered(users: Logins, counted: Counted) -> None:
    for _ in range(3):
        assert await refused(users, basic("ann", "guess")) == "UNAUTHORIZED"
    assert len(counted.hashes) == 3


async def test_an_unknown_user_costs_the_same_check_and_gets_the_same_answer(counted: Counted) -> None:
    users = Logins({"ann": HASH, "bob": HASH.replace(b"$04$", b"$05$")})
    answers = []
    for user in ("ann", "nobody", "bob"):
        with pytest.raises(Refusal) as caught:
            await users.check(basic(user, "guess"))
        answers.append((caught.value.status, caught.value.headers, caught.value.body))
    assert len(set(map(repr, answers))) == 1
    assert len(counted.hashes) == 3
    assert counted.hashes[1][:7] == b"$2b$05$", "as dear as the dearest"
    users.close()


@pytest.mark.parametrize("password", ["", ".", "\0", "x" * 100])
async def test_nothing_matches_the_hash_of_nobody(users: Logins, password: str) -> None:
    assert await refused(users, basic("nobody", password)) == "UNAUTHORIZED"


async def test_a_long_password_is_what_bcrypt_sees_of_it() -> None:
    users = Logins({"ann": bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4))})
    await users.check(basic("ann", "x" * 100))
    assert await refused(users, basic("ann", "x" * 71)) == "UNAUTHORIZED"
    users.close()


async def test_users_and_passwords_are_told_apart(users: Logins) -> None:
    await users.check(basic("ann", "s3cret"))
    for user, password in (("an", "ns3cret"), ("anns", "3cret"), ("ann", "s3cret\0"), ("ann", "")):
        assert await refused(users, basic(user, password)) == "UNAUTHORIZED"


async def test_guesses_do_not_pile_up(users: Logins, counted: Counted) -> None:
    counted.gate.clear()
    guesses = [asyncio.create_task(refused(users, basic("ann", f"{n}"))) for n in range(logins.WAITING + 5)]
    try:
        first = [await task for task in guesses[logins.WAITING :]]
    finally:
        counted.gate.set()
    assert first == ["TOOMANYREQUESTS"] * 5
    assert set(await asyncio.gather(*guesses[: logins.WAITING])) == {"UNAUTHORIZED"}
    await users.check(basic("ann", "s3cret"))


async def test_what_is_remembered_is_bounded_and_no_password(
    users: Logins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logins, "REMEMBERED", 3)
    monkeypatch.setattr(logins, "_matches", lambda password, hashed: True)
    for number in range(10):
        await users.check(basic("ann", f"s3cret{number}"))
    assert len(users._right) == 3
    assert b"s3cret" not in b"".join(users._right)
