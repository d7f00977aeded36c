"""Our pages in Debian's chromium: on a phone, a tablet and a desk, in the light and in the dark, by keyboard
and without scripts. What is looked at is what the documentation's pictures show."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tools import page_pictures as pictures
from tools.browser import PROGRAM, Browser
from tools.page_pictures import sample_registry, sample_run_page

needs_chromium = pytest.mark.skipif(
    PROGRAM is None, reason="needs chromium (Debian: apt-get install chromium)"
)

WIDTHS = (360, 800, 1400)

# Words that go on in another line than they began in. Text nodes end where a break is offered (<wbr>).
BROKEN_WORDS = """
(function(){
const walker=document.createTreeWalker(document.body,NodeFilter.SHOW_TEXT),broken=[];
while(walker.nextNode()){
const node=walker.currentNode;
if(!node.parentElement.checkVisibility()||node.parentElement.closest("style,script,svg"))continue;
for(const word of node.data.matchAll(/[^\\s-]+-?/g)){
const range=document.createRange();
range.setStart(node,word.index);range.setEnd(node,word.index+word[0].length);
if(new Set(Array.from(range.getClientRects(),box=>Math.round(box.top))).size>1)broken.push(word[0])}}
return broken})()
"""

# The least contrast between a text and what is behind it, as WCAG 2.2 counts it, and the text.
LEAST_CONTRAST = """
(function(){
const light=color=>{const[r,g,b]=color.match(/[\\d.]+/g).map(Number).map(value=>{value/=255;
return value<=0.04045?value/12.92:((value+0.055)/1.055)**2.4});return 0.2126*r+0.7152*g+0.0722*b},
behind=part=>{for(;part;part=part.parentElement){const color=getComputedStyle(part).backgroundColor;
if(!/, 0\\)$/.test(color))return color}return "rgb(255, 255, 255)"};
let least=[99,""];
for(const part of document.querySelectorAll("body *")){
if(!Array.from(part.childNodes).some(node=>node.nodeType===3&&node.data.trim())||!part.checkVisibility()||
part.closest("style,script,svg"))continue;
const pair=[light(getComputedStyle(part).color),light(behind(part))].sort((a,b)=>b-a);
const contrast=(pair[0]+0.05)/(pair[1]+0.05);
if(contrast<least[0])least=[contrast,part.textContent.slice(0,40)]}
return least})()
"""


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    async with Browser(tmp_path) as browser:
        yield browser


@pytest.fixture
async def pages(tmp_path: Path) -> AsyncIterator[dict[str, str]]:
    """The addresses of the pages, by what they are."""
    page = tmp_path / "run.html"
    page.write_text(sample_run_page())
    async with sample_registry(tmp_path) as url:
        yield {"run": page.as_uri(), "registry": f"{url}/", "found": f"{url}/?find=billing%2Fa"}


@needs_chromium
async def test_pages_fit_every_width_with_whole_words_that_can_be_read(
    browser: Browser, pages: dict[str, str]
) -> None:
    backs = set()
    for name, url in pages.items():
        for width in WIDTHS:
            await browser.open(url, width=width, dark=width == 800)
            where = f"{name} at {width}"
            assert await browser.evaluate("document.documentElement.scrollWidth") == width, where
            inner = 'Array.from(document.querySelectorAll(".wide"),part=>part.scrollWidth-part.clientWidth)'
            assert not any(await browser.evaluate(inner)), where
            assert await browser.evaluate(BROKEN_WORDS) == [], where
            assert await browser.evaluate('performance.getEntriesByType("resource").length') == 0, where
            least, text = await browser.evaluate(LEAST_CONTRAST)
            assert least >= 4.5, f"{text} of {where}"
            backs.add(await browser.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(backs) == 2, "light and dark"
    await browser.evaluate('document.body.style.cssText = "word-break:break-all;width:5em;color:#777"')
    assert await browser.evaluate(BROKEN_WORDS) != [], "what is looked for is found"
    assert (await browser.evaluate(LEAST_CONTRAST))[0] < 4.5


SHOWN = 'Array.from(document.querySelectorAll("#images tbody tr")).filter(row=>!row.hidden).length'


@needs_chromium
async def test_the_search_of_a_run_works_by_keyboard_and_is_not_there_without_scripts(
    browser: Browser, pages: dict[str, str]
) -> None:
    await browser.open(pages["run"], width=1400)
    every = await browser.evaluate(SHOWN)
    assert every == 12
    await browser.type("/")
    assert await browser.evaluate("document.activeElement.id") == "words"
    await browser.type("failed SEALED")
    assert await browser.evaluate(SHOWN) == 1
    assert await browser.evaluate('document.querySelector("output").textContent') == "1 of 12 images"
    await browser.type("Escape")
    assert await browser.evaluate(SHOWN) == every
    await browser.type("9e3779b97f4a7c150123")
    assert await browser.evaluate(SHOWN) == 1, "the whole digest is found, where a part of it is shown"

    await browser.open(pages["run"], width=1400)
    await browser.type("Tab")
    assert await browser.evaluate("document.activeElement.hash") == "#failures"
    outline = await browser.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"

    await browser.open(pages["run"], width=1400, scripts=False)
    assert await browser.evaluate('document.getElementById("search").checkVisibility()') is False
    assert await browser.evaluate(SHOWN) == every


@needs_chromium
async def test_the_page_of_a_registry_works_by_keyboard_without_scripts(
    browser: Browser, pages: dict[str, str]
) -> None:
    named = 'Array.from(document.querySelectorAll("h2"),part=>part.textContent)'
    await browser.open(pages["registry"], width=800, scripts=False)
    everything = await browser.evaluate(named)
    assert len(everything) == 100
    await browser.type("Tab")
    assert await browser.evaluate("document.activeElement.id") == "find"
    await browser.type("billing/api")
    await browser.press_and_load("Enter")
    assert await browser.evaluate(named) == ["billing/api", "billing/api-2", "billing/api-3"]
    for _ in range(3):  # the box, its button, the first repository's tags
        await browser.type("Tab")
    assert await browser.evaluate("document.activeElement.tagName") == "SUMMARY"
    assert await browser.evaluate("document.activeElement.parentElement.open") is True
    await browser.type("Enter")
    assert await browser.evaluate("document.activeElement.parentElement.open") is False


def test_the_pictures_of_the_documentation_are_there_and_light() -> None:
    for name, picture in pictures.PICTURES.items():
        content = (pictures.FOLDER / name).read_bytes()
        assert content.startswith(b"\x89PNG") and len(content) <= pictures.MOST_BYTES
        assert struct.unpack(">II", content[16:24]) == (picture.width, picture.height)
