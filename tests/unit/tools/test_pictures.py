"""Pictures of a terminal: its characters, in their places and colours, and nothing that acts."""

from __future__ import annotations

from xml.etree import ElementTree

from tools.terminal_pictures import svg_of


class Screen:
    """A screen as `tools.terminal` has it."""

    columns = 40

    def __init__(self, *lines: list[tuple[str, str, bool]]) -> None:
        self.cells = list(lines)


def cells(text: str, colour: str = "default", *, bold: bool = False) -> list[tuple[str, str, bool]]:
    return [(char, colour, bold) for char in text]


def test_a_line_is_its_runs_each_at_its_column() -> None:
    line = cells("transfer", bold=True) + cells("  ") + cells("━━", "green") + cells("──") + cells(" a<b>&")
    svg = svg_of(Screen(cells(""), line), {}, "a <title>")
    texts = [each for each in ElementTree.fromstring(svg).iter() if each.tag.endswith("tspan")]
    assert [(each.text, round((float(each.get("x", 0)) - 14) / 8.4)) for each in texts] == [
        ("transfer", 0),
        ("━━", 10),
        ("──", 12),
        (" a<b>&", 14),
    ]
    assert [each.get("font-weight") for each in texts] == ["bold", None, None, None]
    assert len({each.get("fill") for each in texts}) == 3


def test_hosts_get_the_names_that_they_are_given_and_the_first_lines_without_anything_go() -> None:
    screen = Screen(cells(""), cells("  "), cells("127.0.0.1:4711 answers 503", "brown"))
    svg = svg_of(screen, {"127.0.0.1:4711": "target.example"}, "t")
    assert "target.example answers 503" in svg and "127.0.0.1" not in svg
    assert svg.count("<text") == 1
