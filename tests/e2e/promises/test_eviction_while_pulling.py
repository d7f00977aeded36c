"""A pull-through registry that evicts while clients pull from it: every pull is whole, at every step."""

from __future__ import annotations

import re
import shutil
import threading
import time
from contextlib import closing
from pathlib import Path

from tests.deadlines import HANGS_AFTER
from tests.e2e.promises.client_actions import Client, Deed
from tests.e2e.promises.content import BLOBS, BY_DIGEST, NESTED, reached
from tests.e2e.promises.state_file import make_older
from tests.e2e.promises.stepping import BLOCKED, Command, Stage, leave
from tests.e2e.promises.world import OLD, World

PLACE = f"far/{OLD}"
# Seconds without another removal after which the eviction is taken to be over: it ends the loop, and no test
# fails for it.
OVER = 3.0


def listening(command: Command) -> str:
    """Where serve listens, once it does."""
    deadline = time.monotonic() + HANGS_AFTER
    while time.monotonic() < deadline:
        found = re.search(r"at http://([^,\s]+),", command.output)
        if found is not None:
            return found[1]
        time.sleep(0.002)
    raise AssertionError(command.output)


def wrong_pulls(host: str) -> list[str]:
    """Pull the nested index with all below it, by tag and by digest; what does not come whole."""
    found = []
    with closing(Client(host)) as client:
        by_tag = client.do(Deed("get", PLACE, NESTED.name, "t"))
        if by_tag.body != NESTED.raw:
            found.append(f"the tag: {by_tag.status}")
        below = [BY_DIGEST[digest] for digest in reached([NESTED.digest], BY_DIGEST)]
        for content in sorted(below, key=lambda each: (not each.media_type, each.digest)):
            got = client.do(Deed("get", PLACE, content.name))
            if (got.status, got.body) != (200, content.raw):
                found.append(f"{content.name}: {got.status}")
    return found


def wrong_pulls_beside(edge: Command, host: str) -> list[str]:
    """As `wrong_pulls`; the eviction stands meanwhile, and goes on by a step whenever a pull waits for it."""
    found: list[str] = []
    pulling = threading.Thread(target=lambda: found.extend(wrong_pulls(host)), daemon=True)
    pulling.start()
    while pulling.is_alive():
        pulling.join(leave(edge))
        if pulling.is_alive() and edge.stop is not None:
            edge.go(seconds=BLOCKED)
    return found


def test_pulls_are_whole_while_a_pull_through_registry_stands_before_any_removal(
    stage: Stage, template: Path
) -> None:
    played, wrong = 0, []
    with closing(World(stage, template)) as world:
        world.do(Deed("put", OLD, NESTED.name, "t"))
        upstream = ("--upstream", f"{world.host}=far")
        warm = world.folder / "warm"
        edge = stage.start("serve", "--listen", "127.0.0.1:0", "--root", warm, *upstream)
        assert wrong_pulls(listening(edge)) == []
        edge.kill()
        make_older(warm)
        assert len(list((warm / "blobs" / "sha256").iterdir())) > len(BLOBS) // 2
        for step in range(200):
            root = world.folder / f"edge-{step}"
            shutil.copytree(warm, root)
            words = ("serve", "--listen", "127.0.0.1:0", "--root", root, *upstream, "--max-size", "0")
            edge = stage.start(*words, budget=step, kinds=("remove", "rename"), alone=True)
            host = listening(edge)
            stop = edge.settle(OVER)
            if stop is None:
                edge.kill()
                break
            wrong += [f"at {stop}: {each}" for each in wrong_pulls_beside(edge, host)]
            edge.free()
            wrong += [f"after {stop}: {each}" for each in wrong_pulls(host)]
            edge.kill()
            played += 1
            if wrong:
                break
    print(f"a pull-through registry stood before each of {played} removals, {len(wrong)} pulls were wrong")
    assert wrong or played > 5, "it evicts hardly anything"
    assert not wrong, "\n".join(wrong)
