"""What watches the pages sees what goes wrong on them; pictures that differ are told apart from those that do not."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import Browser

from local.dev import DevStack
from tests.console import pictures
from tests.console.accessible import check_accessible
from tests.console.browsing import Browsing
from tests.patience import wait_until


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("console.error('broken')", "console: broken"),
        ("console.assert(false, 'wrong')", "console: wrong"),
        ("setTimeout(() => { throw new Error('nobody caught it') })", "uncaught: nobody caught it"),
        ("Promise.reject(new Error('nor this'))", "uncaught: nor this"),
        ("setTimeout(() => alert('hello'))", "dialog: hello"),
        ("fetch('/nowhere')", "the server responded with a status of 40"),
        ("document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/x'}))", "another host: GET"),
        ("document.body.setAttribute('style', 'color: red')", "policy: style-src-attr refused inline"),
        ("document.body.setAttribute('onclick', 'alert(1)'); document.body.click()", "policy: script-src-attr"),
    ],
)
def test_what_goes_wrong_on_a_page_is_seen(stack: DevStack, browser: Browser, script: str, told: str) -> None:
    browsing = Browsing(browser, stack.url)
    page = browsing.open("/docs")
    assert browsing.seen() == []
    page.evaluate(f"() => {{ {script}; }}")
    assert wait_until(lambda: page.evaluate("0") or any(told in one for one in browsing.seen())), browsing.seen()
    browsing.watched(page).expect("")
    assert browsing.seen() == [], "what a test expects fails it not"
    browsing.close()


def test_what_somebody_cannot_read_is_found(browsing: Browsing) -> None:
    page = browsing.open("/docs")
    page.evaluate("() => document.body.append(document.createElement('button'))")
    with pytest.raises(AssertionError, match="button-name"):
        check_accessible(page, "a-button-without-a-name")


def test_pictures_differ_by_what_looks_different_and_not_by_how_letters_are_drawn() -> None:
    plain = Image.new("RGB", (400, 300), "white")
    other = plain.copy()
    ImageDraw.Draw(other).rectangle((100, 100, 199, 149), fill="black")
    assert pictures.difference(plain, plain) == 0
    assert pictures.difference(plain, other) == pytest.approx(5000 / 120_000, rel=0.1)
    assert pictures.difference(plain, other, [(100, 100, 100, 50)]) == 0, "what varies is the same"
    assert pictures.difference(plain, other.resize((401, 300))) == 1.0
    dots = plain.copy()
    for left in range(0, 400, 8):
        dots.putpixel((left, 50), (0, 0, 0))
    assert pictures.difference(plain, dots) == 0


def test_a_page_that_looks_otherwise_than_its_kept_picture_fails(
    browsing: Browsing, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(pictures, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(pictures, "TAKEN", tmp_path / "taken")
    monkeypatch.delenv("UPDATE_PICTURES", raising=False)
    page = browsing.open("/docs")
    page.get_by_text("GET").first.wait_for()
    with pytest.raises(AssertionError, match="no picture is kept"):
        pictures.shoot(page, "docs")
    monkeypatch.setenv("UPDATE_PICTURES", "1")
    pictures.shoot(page, "docs")
    monkeypatch.delenv("UPDATE_PICTURES")
    pictures.shoot(page, "docs")
    page.evaluate("() => document.querySelector('h1').after('something '.repeat(200))")
    with pytest.raises(AssertionError, match=r"docs\.phone-dark: .* looks otherwise"):
        pictures.shoot(page, "docs")
    assert (tmp_path / "taken" / "docs.phone-dark.differs.png").is_file()
