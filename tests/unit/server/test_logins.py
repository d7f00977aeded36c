"""Who may come in: the htpasswd file, the header, how often the slow check runs, and who waits for whom."""

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
from blobflow.server.auth import logins
from blobflow.server.auth.htpasswd import parse_htpasswd, read_basic
from blobflow.server.auth.logins import Logins
from blobflow.server.errors import ApiError
from blobflow.server.http.client_network import network_of
from tests.deadlines import HANGS_AFTER

HASH = bcrypt.hashpw(b"s3cret", bcrypt.gensalt(4))


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


class Counted:
    """The slow check, counted by hash; `gate` holds it back."""

    def __init__(self) -> None:
        self.hashes: list[bytes] = []
        self.passwords: list[bytes] = []
        self.threads: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, password: bytes, hashed: bytes) -> bool:
        self.gate.wait(HANGS_AFTER)
        self.hashes.append(hashed)
        self.passwords.append(password)
        self.threads.add(threading.current_thread().name)
        return bcrypt.checkpw(password, hashed)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    counted = Counted()
    monkeypatch.setattr(logins, "_matches", counted)
    return counted


class Clock:
    """Time that passes when somebody sleeps; `slept` is how long each did."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def users(clock: Clock) -> Iterator[Logins]:
    made = Logins({"ann": HASH, "bob": HASH, "cid": HASH}, clock=clock, sleep=clock.sleep)
    yield made
    made.close()


async def refused(
    users: Logins, authorization: str | None, address: str = "", connection: object = None
) -> str:
    with pytest.raises(ApiError) as caught:
        await users.check(authorization, address, connection)
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
    ids=lambda value: value if value.startswith(("line", "has")) else value[:8],  # each run has its own salt
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


async def test_a_right_login_is_checked_once_while_it_is_used(
    users: Logins, counted: Counted, clock: Clock
) -> None:
    for _ in range(100):
        assert await users.check(basic("ann", "s3cret")) == "ann"
    clock.now += logins.KNOWN_SECONDS - 1
    await users.check(basic("ann", "s3cret"))
    assert len(counted.hashes) == 1
    clock.now += logins.KNOWN_SECONDS
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


async def test_a_known_login_does_not_let_another_password_in(users: Logins) -> None:
    await users.check(basic("ann", "s3cret"))
    assert await refused(users, basic("ann", "guess")) == "UNAUTHORIZED"
    await users.check(basic("ann", "s3cret"))


async def test_an_unknown_user_costs_the_same_check_and_gets_the_same_answer(
    counted: Counted, clock: Clock
) -> None:
    users = Logins({"ann": HASH, "bob": HASH.replace(b"$04$", b"$05$")}, clock=clock, sleep=clock.sleep)
    answers = []
    for user in ("ann", "nobody", "bob", ":", ""):
        with pytest.raises(ApiError) as caught:
            await users.check(basic(user, "guess"))
        answers.append((caught.value.status, caught.value.headers, caught.value.body))
    assert len(set(map(repr, answers))) == 1
    assert len(counted.hashes) == 5
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


async def test_what_is_remembered_is_one_hash_a_user_and_no_password(
    users: Logins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logins, "_matches", lambda password, hashed: True)
    for number in range(10):
        await users.check(basic("ann", f"s3cret{number}"))
    assert list(users._known) == ["ann"]
    assert b"s3cret" not in users._known["ann"].digest


async def test_an_error_of_the_check_is_the_callers_and_ends_nothing(
    users: Logins, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(password: bytes, hashed: bytes) -> bool:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(logins, "_matches", broken)
        with pytest.raises(MemoryError):
            await users.check(basic("ann", "s3cret"))
    await users.check(basic("ann", "s3cret"))


# Other users


async def test_a_removed_user_is_out_also_if_the_login_was_known(users: Logins) -> None:
    await users.check(basic("ann", "s3cret"))
    users.replace({"bob": HASH})
    assert await refused(users, basic("ann", "s3cret")) == "UNAUTHORIZED"
    await users.check(basic("bob", "s3cret"))
    assert users.names == {"bob"}


async def test_a_changed_password_puts_the_old_one_out(users: Logins, counted: Counted) -> None:
    for user in ("ann", "bob"):
        await users.check(basic(user, "s3cret"))
    users.replace({"ann": bcrypt.hashpw(b"n3w", bcrypt.gensalt(4)), "bob": HASH})
    assert await refused(users, basic("ann", "s3cret")) == "UNAUTHORIZED"
    await users.check(basic("ann", "n3w"))
    before = len(counted.hashes)
    await users.check(basic("bob", "s3cret"))
    assert len(counted.hashes) == before, "whose line is the same stays known"


@pytest.mark.parametrize(
    ("later", "outcome"),
    [({"bob": HASH}, "UNAUTHORIZED"), ({"ann": bcrypt.hashpw(b"s3cret", bcrypt.gensalt(4))}, "")],
)
async def test_a_file_that_changes_during_a_check_decides_it(
    users: Logins, counted: Counted, later: dict[str, bytes], outcome: str
) -> None:
    counted.gate.clear()
    checking = asyncio.create_task(users.check(basic("ann", "s3cret")))
    await asyncio.sleep(0)
    users.replace(later)
    counted.gate.set()
    if outcome:
        with pytest.raises(ApiError) as caught:
            await checking
        assert caught.value.code == outcome
    else:
        assert await checking == "ann"


# Many wrong logins

NAT = "192.0.2.1"


async def test_guesses_at_one_name_keep_no_other_user_waiting(users: Logins, counted: Counted) -> None:
    """Neither from the same address nor from another; the other user's check is the next but one."""
    counted.gate.clear()
    guesses = [asyncio.create_task(refused(users, basic("ann", f"{n}"), NAT)) for n in range(500)]
    for _ in range(20):
        await asyncio.sleep(0)
    right = [asyncio.create_task(users.check(basic("bob", "s3cret"), NAT))]
    right.append(asyncio.create_task(users.check(basic("cid", "s3cret"), "192.0.2.2")))
    for _ in range(20):
        await asyncio.sleep(0)
    counted.gate.set()
    assert await asyncio.gather(*right) == ["bob", "cid"]
    at = [at for at, password in enumerate(counted.passwords) if password == b"s3cret"]
    assert max(at) <= 3
    assert set(await asyncio.gather(*guesses)) == {"TOOMANYREQUESTS", "UNAUTHORIZED"}
    assert len(counted.hashes) < 20, "what waits too long is not checked"


async def test_made_up_names_together_get_the_turns_of_one(users: Logins, counted: Counted) -> None:
    counted.gate.clear()
    guesses = [asyncio.create_task(refused(users, basic(f"x{n}", "guess"), NAT)) for n in range(500)]
    for _ in range(20):
        await asyncio.sleep(0)
    right = asyncio.create_task(users.check(basic("bob", "s3cret"), NAT))
    for _ in range(20):
        await asyncio.sleep(0)
    counted.gate.set()
    assert await right == "bob"
    assert counted.passwords.index(b"s3cret") <= 2
    await asyncio.gather(*guesses)


async def test_a_known_login_waits_for_nothing(users: Logins, counted: Counted) -> None:
    await users.check(basic("ann", "s3cret"), NAT)
    counted.gate.clear()
    guesses = [asyncio.create_task(refused(users, basic("ann", f"{n}"), NAT)) for n in range(100)]
    await asyncio.sleep(0)
    assert await users.check(basic("ann", "s3cret"), NAT) == "ann"
    counted.gate.set()
    await asyncio.gather(*guesses)


async def test_wrong_logins_of_one_address_come_at_a_growing_pause_that_is_bounded(
    users: Logins, clock: Clock
) -> None:
    codes = [await refused(users, basic("ann", f"{n}"), NAT) for n in range(12)]
    assert codes == ["UNAUTHORIZED"] * 12
    pauses = [round(pause, 6) for pause in clock.slept if pause > 0.01]
    assert len(pauses) > 6
    assert 1 < max(pauses) <= logins.REFUSAL_PAUSE_MOST
    clock.slept.clear()
    assert await refused(users, basic("ann", "guess"), "192.0.2.2") == "UNAUTHORIZED"
    assert sum(clock.slept) == 0, "another address pays nothing for it"


async def test_a_right_login_at_an_address_that_failed_pays_no_refusals_pause(
    users: Logins, clock: Clock
) -> None:
    for number in range(12):
        await refused(users, basic("ann", f"{number}"), NAT)
    clock.slept.clear()
    await users.check(basic("bob", "s3cret"), NAT)
    assert clock.slept == []


async def test_what_is_guessed_at_comes_in_over_a_new_connection(users: Logins, clock: Clock) -> None:
    """A hundred connections of one address guess at ann's password; ann has that address, too."""

    class Connection:
        pass

    connections = [Connection() for _ in range(100)]
    for number in range(5):
        guesses = [
            refused(users, basic("ann", f"{number}-{at}"), NAT, each) for at, each in enumerate(connections)
        ]
        await asyncio.gather(*guesses)
    clock.slept.clear()
    assert await users.check(basic("ann", "s3cret"), NAT, Connection()) == "ann"
    assert sum(clock.slept) <= logins.WAIT


async def test_refusals_tell_no_names(users: Logins, clock: Clock) -> None:
    """The same guesses at a user's password and at nobody's get the same answers at the same moments."""
    told = []
    for user, address in (("ann", "192.0.2.7"), ("nobody", "192.0.2.8")):
        begun = clock.now
        answers = []
        for number in range(10):
            code = await refused(users, basic(user, f"{number}"), address)
            answers.append((code, round(clock.now - begun, 6)))
        told.append(answers)
    assert told[0] == told[1]


async def test_a_name_is_not_told_by_what_others_wait_for(users: Logins, clock: Clock) -> None:
    """Where made-up names of an address are turned away, a wrong login of a user is turned away, too."""
    await asyncio.gather(*(refused(users, basic(f"x{n}", "guess"), NAT) for n in range(200)))
    clock.slept.clear()
    now = clock.now
    guesses = [refused(users, basic(f"x{n}", "guess"), NAT) for n in range(50)]
    codes = await asyncio.gather(*guesses, refused(users, basic("ann", "guess"), NAT))
    assert codes[-1] == codes[-2] == "TOOMANYREQUESTS"
    assert clock.now > now


async def test_a_429_says_when_to_come_again(users: Logins, counted: Counted) -> None:
    counted.gate.clear()
    guesses = [asyncio.create_task(users.check(basic("ann", f"{number}"), NAT)) for number in range(200)]
    await asyncio.sleep(0)
    counted.gate.set()
    told = [
        error.headers
        for error in await asyncio.gather(*guesses, return_exceptions=True)
        if isinstance(error, ApiError) and error.code == "TOOMANYREQUESTS"
    ]
    assert told
    assert all(
        1 <= int(headers["Retry-After"]) <= logins.WAIT + logins.REFUSAL_PAUSE_MOST for headers in told
    )
    assert all("WWW-Authenticate" not in headers for headers in told)


async def test_what_is_held_back_is_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logins, "HELD", 3)
    held = asyncio.Event()

    async def sleep(seconds: float) -> None:
        await held.wait()

    users = Logins({"ann": HASH}, clock=clock, sleep=sleep)
    await asyncio.gather(*(refused(users, basic("ann", "guess"), f"192.0.2.{n}") for n in range(20)))
    guesses = {asyncio.create_task(refused(users, basic("ann", f"{n}"), "192.0.2.1")) for n in range(200)}
    waiting = guesses
    while len(waiting) > logins.HELD + 1:  # the first guess waits for its moment
        _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    assert users._held == logins.HELD
    held.set()
    await asyncio.gather(*guesses)
    assert users._held == 0
    users.close()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:0:0:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2", True),
        # All of IPv4 may come out of one translator, and does not count as one; a tunnel's end is one.
        ("64:ff9b::192.0.2.1", "64:ff9b::192.0.2.2", False),
        ("64:ff9b::192.0.2.1", "192.0.2.1", True),
        ("64:ff9b:1::192.0.2.1", "64:ff9b:1::192.0.2.2", False),
        ("2002:c000:201::1", "2002:c000:201:7::1", True),
        ("2002:c000:201::1", "2002:c000:202::1", False),
        ("2001:0:808:808:0:1:3fff:fdfe", "2001:0:808:808:0:1:3fff:fdfd", False),
        # An identifier that anybody may choose says nothing.
        ("2001:db8::5efe:192.0.2.1", "2001:db8::5efe:192.0.2.2", True),
        ("", "", True),
    ],
)
def test_an_address_is_what_one_subscriber_has(one: str, other: str, same: bool) -> None:
    assert (network_of(one) == network_of(other)) is same
