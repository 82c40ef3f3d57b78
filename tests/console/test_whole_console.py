"""All pages of the console at once: everybody can use them, owners are apart, and what others named runs nothing."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest
import requests
from playwright.sync_api import Page, expect

from local.aws import gateway
from local.dev import DevStack
from tests.console.accessible import check_accessible
from tests.console.at_console import KEY, Held, comes, console, go
from tests.console.browsing import PHONE, Browsing
from tests.console.pictures import shoot
from tests.console.samples import Person, Samples, picture
from tests.patience import PATIENCE_S, wait_until

#: Sets a flag, if anything takes it for more than a text.
RUNS = "<img src=x onerror=globalThis.ran=1><svg onload=globalThis.ran=1></svg><script>globalThis.ran=1</script>"
EVIL_SVG = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9" onload="globalThis.ran = 1; alert(1)">'
    b'<script>globalThis.ran = 1; alert(1)</script><rect width="9" height="9" fill="red"/></svg>'
)
LISTS = ("jobs", "gallery", "run", "batches", "workflows", "usage")


@pytest.fixture(scope="module")
def anns_secrets(ann: Person, samples: Samples) -> list[str]:
    """Texts that are nowhere but in what Ann has: ids, names and labels."""
    ann.request("PUT", "/api/v2/workflows/anns-secret-flow", {"workflow": picture(0x123456)})
    job_id = ann.submit(picture(0x654321, prefix="anns_secret_file"), metadata={"anns_label": "anns_value"})
    ann.end_of(job_id)
    lines = [{"workflow": picture(number), "metadata": {"anns_line": str(number)}} for number in range(2)]
    ann.request("POST", "/api/v2/batches", {"name": "anns-secret-batch", "lines": lines})
    names = ["anns-secret-flow", "anns_secret_file", "anns_label", "anns_value", "anns-secret-batch", "anns_line"]
    return [job_id, samples.failed, samples.named, *names]


def settled(page: Page) -> None:
    """Wait until the page has what it shows."""
    expect(page.locator("main h1, main .empty").first).to_be_visible()
    expect(page.locator("main[aria-busy=true]")).to_have_count(0)


@pytest.mark.parametrize("name", ["batches", "batches?new=1", "workflows", "workflows/text_to_image", "usage"])
def test_everybody_can_use_every_page_and_it_looks_as_it_did(
    browsing: Browsing, bob: Person, samples_of_bob: Samples, name: str
) -> None:
    page = console(browsing, bob, name)
    settled(page)
    called = re.sub(r"\W+", "-", name).strip("-")
    check_accessible(page, called)
    shoot(page, called, varying=["#who", ".id", "table", ".counts", ".chart", "figcaption", "#batch-name", "code"])


def test_the_pages_of_an_admin_show_no_job_of_others_but_their_sums(
    browsing: Browsing, admin: Person, anns_secrets: list[str]
) -> None:
    page = console(browsing, admin, "jobs")
    settled(page)
    assert not [secret for secret in anns_secrets if secret in page.locator("body").inner_text()]
    go(page, "usage?by=owner&days=7")
    expect(page.get_by_role("table").first).to_contain_text("local")


def test_two_owners_see_nothing_of_each_other_on_any_page(
    browsing: Browsing, bob: Person, samples: Samples, samples_of_bob: Samples, anns_secrets: list[str]
) -> None:
    page = console(browsing, bob, "jobs")
    browsing.watched(page).expect("404.*batch=anns-secret-batch")  # as of one that nobody has
    heard: list[str] = []
    page.on("response", lambda answer: heard.append(answer.text()) if "/api/v2/" in answer.url and answer.ok else None)
    paths = [
        *LISTS,
        "jobs?label=anns_label%3Danns_value",
        "gallery?workflow=anns-secret-flow",
        "gallery?batch=anns-secret-batch",
        "batches?new=1",
    ]
    for path in paths:
        go(page, path)
        settled(page)
        page.wait_for_timeout(300)
        shown = page.locator("main").inner_text()
        # What was asked for may stand in a filter; what Ann has made of it does not.
        asked = {secret for secret in anns_secrets if secret in path}
        assert not [secret for secret in anns_secrets if secret in shown and secret not in asked], path
    assert not [secret for secret in anns_secrets if any(secret in text for text in heard)]


def test_what_is_another_s_is_not_there_whatever_address_is_typed(
    browsing: Browsing, bob: Person, samples: Samples, samples_of_bob: Samples, anns_secrets: list[str]
) -> None:
    page = console(browsing, bob, "jobs")
    browsing.watched(page).expect("404")
    settled(page)
    for path in (
        f"jobs/{anns_secrets[0]}",
        f"run?from={anns_secrets[0]}",
        "batches/anns-secret-batch",
        "workflows/anns-secret-flow",
        "run/anns-secret-flow",
    ):
        unknown = path.replace(anns_secrets[0], "11111111-1111-4111-8111-111111111111").replace(
            "anns-secret", "nobodys"
        )
        told = []
        for one in (path, unknown):
            go(page, one)
            alert = page.locator("main [role=alert], main .notice.bad, main .failure").first
            expect(alert).to_contain_text(re.split(r"[/=]", one)[-1])
            told.append(re.sub(r"[\w-]{10,}", "…", alert.inner_text()))
        assert told[0] == told[1], "it is as if there were none"


def test_what_others_have_named_runs_nothing_on_any_page(
    browsing: Browsing, ann: Person, samples: Samples, stack: DevStack
) -> None:
    color = {"target": "1.color", "title": RUNS, "description": RUNS}
    body = {"workflow": picture(255), "inputs": {"color": color}, "description": RUNS, "note": RUNS}
    ann.request("PUT", "/api/v2/workflows/runs-nothing", body)
    graph = picture(0xAA0000, prefix="<svg onload=globalThis.ran=1>")
    graph["1"]["_meta"] = {"title": RUNS}
    job_id = ann.submit(graph, metadata={"note": RUNS[:200], "x<img src=x onerror=globalThis.ran=1>"[:40]: "y"})
    lines = [
        {"workflow": graph, "metadata": {"note": RUNS[:200]}},
        {"workflow": {"1": {"class_type": RUNS, "inputs": {}}}},
    ]
    ann.request("POST", "/api/v2/batches", {"name": "runs-nothing", "lines": lines, "force": True})
    bad = ann.submit(
        {**graph, "3": {"class_type": "LoadImage", "inputs": {"image": "<img src=x onerror=alert(1)>.png"}}}
    )
    ann.end_of(job_id)
    ann.end_of(bad)
    page = console(browsing, ann, "jobs")
    browsing.watched(page).expect("422")  # no workflow can be called so
    for path in (
        *LISTS,
        f"jobs/{job_id}",
        f"jobs/{bad}",
        "run/runs-nothing",
        f"run?from={job_id}",
        "workflows/runs-nothing",
        "batches/runs-nothing",
        f"jobs?label={quote('note=' + RUNS)}",
        f"gallery?workflow={quote(RUNS)}",
        f"{quote(RUNS)}/x",
    ):
        go(page, path)
        expect(page.locator("main h1, main .empty, main .notice").first).to_be_visible()
        page.wait_for_timeout(200)
        assert page.evaluate("() => globalThis.ran") is None, path
        assert page.locator("main script, main [onload], main [onerror]").count() == 0, path


def test_an_svg_that_somebody_has_uploaded_runs_nothing_wherever_it_is_opened(
    browsing: Browsing, ann: Person, samples: Samples
) -> None:
    answer = requests.post(
        f"{ann.url}/api/v2/assets",
        data={"content_type": "image/svg+xml", "file_path": "evil.svg"},
        files={"file": ("evil.svg", EVIL_SVG, "image/svg+xml")},
        headers={"Authorization": f"Bearer {ann.key}"},
        timeout=PATIENCE_S,
    )
    assert answer.ok, answer.text
    page = console(browsing, ann, "run/thumbnail")
    page.get_by_role("button", name="Uploads").click()
    expect(page.locator("dialog")).to_contain_text("evil")
    page.wait_for_timeout(300)
    assert page.evaluate("() => globalThis.ran") is None
    # Its own address, in a tab of its own: it is saved, or shown as what runs nothing.
    url = ann.request("GET", f"/api/v2/assets/{answer.json()['id']}")["url"]
    told = requests.get(url, timeout=PATIENCE_S).headers
    is_saved = told.get("content-disposition", "").startswith("attachment")
    assert is_saved or "svg" not in told.get("content-type", ""), told


def test_a_slow_api_is_waited_for_and_nothing_is_sent_twice(browsing: Browsing, ann: Person, samples: Samples) -> None:
    page = console(browsing, ann, "run/text_to_image")
    page.get_by_label("Steps").fill("1")
    held = Held(page, "**/api/v2/workflows/**")
    page.get_by_role("button", name="Run", exact=True).dblclick()
    assert comes(page, lambda: held.asked("POST")), "no answer has come before the second click"
    held.release()
    expect(page.locator(".run .succeeded, .run .status").first).to_be_visible()
    expect(page.locator(".run")).to_have_count(1)
    assert len(held.asked("POST")) == 1
    go(page, "workflows")
    settled(page)


def test_a_connection_that_is_lost_while_something_is_sent_loses_nothing(
    browsing: Browsing, ann: Person, samples: Samples
) -> None:
    page = console(browsing, ann, "run/text_to_image")
    page.get_by_label("Prompt", exact=True).fill("typed before the tunnel")
    page.get_by_label("Steps").fill("1")
    browsing.watched(page).expect("ERR_INTERNET_DISCONNECTED|ERR_FAILED|Failed to fetch")
    page.context.set_offline(True)
    page.get_by_role("button", name="Run", exact=True).click()
    expect(
        page.locator("#banner, [role=alert], .toast, .run .problem, .run .bad").filter(has_text=re.compile(r"\w")).first
    ).to_be_visible()
    page.context.set_offline(False)
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("typed before the tunnel")
    again = page.get_by_role("button", name="Run", exact=True)
    expect(again).to_be_enabled()
    expect(page.locator("#banner")).to_have_text("")
    before = len(ann.request("GET", "/api/v2/jobs?limit=100")["jobs"])
    if page.locator(".run .succeeded").count() == 0:
        again.click()
    expect(page.locator(".run .succeeded").first).to_be_visible()
    assert wait_until(lambda: len(ann.request("GET", "/api/v2/jobs?limit=100")["jobs"]) <= before + 1)


@pytest.mark.parametrize("path", LISTS)
def test_a_lost_connection_is_told_on_every_page_and_heals(
    browsing: Browsing, ann: Person, samples: Samples, path: str
) -> None:
    page = console(browsing, ann, "nowhere")
    settled(page)
    browsing.watched(page).expect("ERR_INTERNET_DISCONNECTED|ERR_FAILED|Failed to fetch")
    page.route("**/api/v2/**", lambda route: route.abort("internetdisconnected"))
    go(page, path)
    expect(page.locator("#banner")).to_contain_text("connection")
    page.unroute("**/api/v2/**")
    page.evaluate("() => window.dispatchEvent(new Event('online'))")
    expect(page.locator("#banner")).to_have_text("")
    settled(page)


def test_a_key_that_is_revoked_shows_nothing_more(
    browsing: Browsing, stack: DevStack, samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "AUTHORIZER_CACHE_S", 1.0)  # on AWS a minute
    made = stack.keys.create("soon-gone", owner="local")
    page = console(browsing, Person(stack.url, "local", made.text), "jobs")
    settled(page)
    stack.keys.revoke("soon-gone")
    browsing.watched(page).expect("401|403")
    assert wait_until(
        lambda: (
            requests.get(
                f"{stack.url}/api/v2/jobs", headers={"Authorization": f"Bearer {made.text}"}, timeout=PATIENCE_S
            ).status_code
            == 401
        )
    )
    go(page, "gallery")
    expect(page.locator("dialog")).to_contain_text("does not work any more")
    assert page.evaluate(f"() => sessionStorage.getItem('{KEY}')") is None
    assert page.locator("main img").count() == 0


@pytest.mark.parametrize("path", [*LISTS, "batches?new=1", "workflows/text_to_image"])
def test_nothing_is_wider_than_a_phone(browsing: Browsing, bob: Person, samples_of_bob: Samples, path: str) -> None:
    page = console(browsing, bob, path, viewport={**PHONE, "width": 360})
    settled(page)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 360
