"""What a run looks like on a terminal: slow, standing still, told to wait, interrupted, and large; at 60, 100
and 200 columns, also if that changes meanwhile."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest

from tests.deadlines import HANGS_AFTER
from tools import screens
from tools.terminal import LINES, Terminal

BAR = re.compile("[━─]+")
COLOUR = re.compile(rb"\x1b\[[1-9]\d*m")
WIDTHS = (60, 200, 100)


def assert_no_ghosts(text: str, columns: int) -> None:
    """That what was drawn is there once, and fits."""
    lines = text.splitlines()
    assert sum(bool(re.match("(resolve|survey|transfer) ", line)) for line in lines) == 1, text
    assert max(map(len, lines)) < columns, text
    assert lines[0] == "" and lines[1].startswith(("transfer", "resolve")), text


async def resized(terminal: Terminal, columns: int, *words: str) -> str:
    """What the screen shows after it was given other columns, drawn for them."""
    text = await terminal.resized(columns, *words)
    assert_no_ghosts(text, columns)
    return text


async def test_a_slow_run_shows_how_fast_it_is_and_when_it_ends(tmp_path: Path) -> None:
    async with screens.slow(tmp_path) as scene, scene.on_terminal(100) as terminal:
        text = await terminal.shows("transfer 0/8 images", " left", "kB/s")
        assert_no_ghosts(text, 100)
        first, *rows = text.splitlines()[1:]
        assert re.fullmatch(
            r"transfer 0/8 images  ━*─+  [\d.]+ [kM]B of 5\.5 MB  [\d.]+ kB/s  (\d+ min( \d+ s)?|\d+ s) left",
            first,
        )
        row = r"  shop/\w+:\d\.\d +[0-9a-f]{7}  ━*─*  +[\d.]+ k?B of \d+ kB  ([\d.]+ k?B/s)?"
        assert re.fullmatch(row, rows[0]), rows[0]
        assert re.fullmatch(r"  and \d+ more blobs", rows[8])
        assert COLOUR.search(terminal.written)
        narrow = await resized(terminal, 60, "transfer 0/8 ")
        assert " left" in narrow and not BAR.search(narrow.splitlines()[2])
        wide = await resized(terminal, 200, "sha256:")
        assert re.search(r"shop/\w+:\d\.\d +sha256:[0-9a-f]{12}  ━", wide)


async def test_a_stall_shows_0_bytes_a_second_and_since_when_and_then_goes_on(tmp_path: Path) -> None:
    async with screens.stalled(tmp_path) as scene, scene.on_terminal(100) as terminal:
        silent = f"{scene.source} sends nothing of "
        total = r"\ntransfer 0/8 images  [━─]+  [\d.]+ kB of 5\.5 MB  0 B/s for \d+ s\n"
        text = await terminal.until(lambda text: silent in text and bool(re.match(total, text)))
        assert len(re.findall(r"  shop/.* of .*B  0 B/s for \d+ s", text)) == 8
        for columns in WIDTHS:
            await resized(terminal, columns, "0 B/s for ")
        scene.let_go.set()
        assert await terminal.ended() == 0
        assert terminal.lines[0] == "8 images: 8 done"
        assert "transfer" not in terminal.text and terminal.cursor_is_shown


async def test_a_503_is_told_with_its_time_and_after_ctrl_c_the_same_command_goes_on(tmp_path: Path) -> None:
    async with screens.unavailable(tmp_path) as scene:
        words = f"{scene.target} answers 503, trying again in "
        async with scene.on_terminal(100) as terminal:
            text = await terminal.shows(words)
            assert re.search(re.escape(words) + r"(20|1\d) s \(2 of 5\)", text)
            for columns in WIDTHS:
                await resized(terminal, columns, "answers 503")
            terminal.process.send_signal(signal.SIGTSTP)
            await terminal.until(lambda text: terminal.cursor_is_shown and "answers 503" not in text)
            terminal.process.send_signal(signal.SIGCONT)
            await terminal.shows("answers 503")
            terminal.interrupt()
            assert await terminal.ended() == 130
            assert terminal.cursor_is_shown and "━" not in terminal.text
            done = re.fullmatch(r"8 images: (?:(\d) done, )?(\d) left", terminal.lines[0])
            assert done, terminal.text
            there, left = int(done[1] or 0), int(done[2])
            assert re.fullmatch(
                rf"{there} of 8 images (is|are) at the target, {left} left "
                r"\([\d.]+ [kM]B written\); the same command goes on",
                terminal.lines[-2],
            )
            assert terminal.lines[-1] == "blobflow: interrupted"
            moved = re.search(r"(\d+) blobs copied", terminal.text)
        async with scene.on_terminal(100) as again:
            assert await again.ended() == 0
            assert again.lines[0] == f"8 images: {8 - there} done" + (f", {there} present" if there else "")
            more = re.search(r"(\d+) blobs? copied", again.text)
            assert moved and more and int(moved[1]) > 0 and int(moved[1]) + int(more[1]) <= 60


async def test_200_images_are_counted_while_they_are_resolved(tmp_path: Path) -> None:
    async with screens.many_images(tmp_path) as scene, scene.on_terminal(100, NO_COLOR="1") as terminal:
        silent = f"{scene.source} has not answered for "
        text = await terminal.shows(f"resolve {screens.RESOLVED}/200", silent)
        assert_no_ghosts(text, 100)
        assert re.search(rf"^resolve {screens.RESOLVED}/200  ━+─+$", text, re.MULTILINE)
        assert re.search(re.escape(silent) + r"\d+ s: \d+ requests", text)
        for columns in WIDTHS:
            await resized(terminal, columns, f"resolve {screens.RESOLVED}/200", "has not answered")
        assert not COLOUR.search(terminal.written)


async def tmux(folder: Path, *arguments: str) -> str:
    """What tmux, with a server of its own, prints for these arguments."""
    command = ["tmux", "-f", "/dev/null", "-S", str(folder / "tmux"), *arguments]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await asyncio.wait_for(process.communicate(), HANGS_AFTER)
    assert process.returncode == 0, arguments
    return out.decode()


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is the terminal that wraps lines anew")
async def test_a_terminal_that_wraps_lines_anew_when_it_is_resized_shows_no_ghosts(tmp_path: Path) -> None:
    async def shown(*words: str, columns: int) -> str:
        while True:
            text = (await tmux(tmp_path, "capture-pane", "-p")).rstrip()
            if all(word in text for word in words) and max(map(len, text.splitlines())) < columns:
                return text
            await asyncio.sleep(0.2)  # tmux tells nobody when a screen changes

    async with screens.stalled(tmp_path) as scene, asyncio.timeout(HANGS_AFTER):
        command = [f"HOME={tmp_path}", "TERM=screen-256color", sys.executable, "-m", "blobflow"]
        size = ["-x", "100", "-y", str(LINES)]
        await tmux(tmp_path, "new-session", "-d", *size, "env", *command, *scene.arguments)
        try:
            await shown("transfer 0/8 images  ━", "0 B/s for ", columns=100)
            await tmux(tmp_path, "resize-window", "-x", "60")
            assert_no_ghosts(await shown("transfer 0/8  ", columns=60), 60)
        finally:
            await tmux(tmp_path, "kill-server")
