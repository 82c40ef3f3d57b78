"""Batches: of a manifest, of a table and of many pictures; paused, run again, downloaded, on paper."""

from __future__ import annotations

import base64
import gzip
import io
import json
import re
import zipfile
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from playwright.sync_api import Page, Request, expect

from local.dev import DevStack
from tests.console.accessible import check_accessible
from tests.console.at_console import KEY, console, drop, go
from tests.console.browsing import Browsing
from tests.console.pictures import shoot
from tests.console.samples import HOSTILE, Person, Samples, failing, make_samples, picture
from tests.console.test_run_in_browser import plain_picture
from tests.patience import PATIENCE_S, wait_until

#: Whose batches these are: the lists of the other tests' people stay short.
OWNER = "cleo"
NO_PICKER = "delete window.showSaveFilePicker"  # as in other browsers
#: The dialog is the browser's own, and no test can answer it: this answers as one that chose a file, and keeps what is
#: written. `refuses` are names of errors: one a call, in place of an answer.
PICKER = """(() => {
  const told = globalThis.picker = {asked: [], chunks: [], state: "none", refuses: []};
  globalThis.showSaveFilePicker = async (options) => {
    told.asked.push(options);
    if (told.refuses.length) throw new DOMException("refused", told.refuses.shift());
    told.chunks = [];
    return {createWritable: async () => {
      told.state = "open";
      return {
        write: async (bytes) => {
          if (told.state !== "open") throw new TypeError(told.state);
          told.chunks.push(bytes.slice());
        },
        close: async () => { told.state = "closed"; },
        abort: async () => { told.state = "aborted"; },
      };
    }};
  };
})()"""
#: What was written, in Base64.
WRITTEN = """async () => {
  const reader = new FileReader();
  reader.readAsDataURL(new Blob(globalThis.picker.chunks));
  await new Promise((then) => { reader.onload = then; });
  return reader.result.split(",")[1];
}"""
#: Names that lead elsewhere, mean something to a system, or are another's: what a pack calls its files.
NAMES = (
    "../../evil.png",
    "/etc/passwd",
    "C:\\\\Windows\\\\x.png",
    "a/../../b.png",
    "con\n<b>.png",
    "fox.png",
    "FOX.PNG",
    "..",
)


@pytest.fixture(scope="module")
def ann(stack: DevStack) -> Person:
    """Somebody with many jobs."""
    return Person(stack.url, OWNER, stack.keys.create(OWNER, owner=OWNER).text)


@pytest.fixture(scope="module")
def samples(ann: Person) -> Samples:
    """What she has made."""
    return make_samples(ann)


def lines(*requests: object) -> bytes:
    return "\n".join(map(json.dumps, requests)).encode()


def begin(page: Page, name: str, files: dict[str, bytes]) -> None:
    """Drop files for a new batch, and name it."""
    go(page, "batches?new=1")
    page.locator("#batch-name").wait_for()
    drop(page, "main", files)
    page.locator("main .card").wait_for()
    page.locator("#batch-name").fill(name)


def test_a_manifest_of_fifty_is_paused_resumed_and_downloaded(
    browsing: Browsing, ann: Person, samples: Samples, tmp_path: Path
) -> None:
    page = console(browsing, ann, "batches")
    asked = [{"workflow": picture(color * 1000, size=16), "metadata": {"note": HOSTILE}} for color in range(50)]
    begin(page, "fifty", {"fifty.jsonl": lines(*asked)})
    page.get_by_role("button", name="Run every line").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("fifty")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    assert ann.request("GET", "/api/v2/batches/fifty")["status"] == "paused"
    page.get_by_role("button", name="Resume").click()
    assert wait_until(lambda: ann.request("GET", "/api/v2/batches/fifty")["status"] == "completed")
    expect(page.locator(".status.completed")).to_be_visible()
    expect(page.locator(".sheet figure").first).to_contain_text(HOSTILE[:20])
    check_accessible(page, "batch")
    page.evaluate(NO_PICKER)
    page.get_by_role("button", name="Download all").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save the archive").click()
    download.value.save_as(tmp_path / "fifty.zip")
    with zipfile.ZipFile(tmp_path / "fifty.zip") as archive:
        assert archive.testzip() is None
        assert len(archive.namelist()) == 50
        assert archive.read(archive.namelist()[0]).startswith(b"\x89PNG")
    with page.expect_download() as links:
        page.get_by_role("button", name="Only the links").click()
    links.value.save_as(tmp_path / "fifty.txt")
    assert len((tmp_path / "fifty.txt").read_text().split()) == 50
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Contact sheet").click()
    expect(page.locator(".sheet figure")).to_have_count(50)
    check_accessible(page, "contact-sheet")


def _is_csv(request: Request) -> bool:
    return urlsplit(request.url).path.endswith(".csv")


def test_what_failed_is_shown_with_its_line_and_runs_again(browsing: Browsing, ann: Person, samples: Samples) -> None:
    ann.request(
        "POST",
        "/api/v2/batches",
        {"name": "some-fail", "lines": [*[{"workflow": picture(1)}], {"workflow": failing()}]},
    )
    page = console(browsing, ann, "batches/some-fail")
    assert wait_until(lambda: ann.request("GET", "/api/v2/batches/some-fail")["status"] == "completed")
    row = page.get_by_role("region", name="First failures").locator("tbody tr")
    expect(row).to_have_count(1)
    expect(row.locator("td").first).to_have_text("2")
    expect(row).to_contain_text("node_execution_error")
    assert row.get_by_role("link").get_attribute("href")
    with page.expect_response("**/api/v2/batches/*") as told, page.context.expect_event("request", _is_csv) as asked:
        page.get_by_role("button", name="Report (CSV)").click()
    assert asked.value.url == told.value.json()["csv_url"], "a link of now: that of an hour ago would have ended"
    page.get_by_role("button", name="Retry").click()
    page.get_by_label("Which lines").select_option("failed")
    page.get_by_role("button", name="Run again").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("some-fail-again")


def test_rows_of_a_table_become_jobs_of_a_workflow(browsing: Browsing, ann: Person, samples: Samples) -> None:
    page = console(browsing, ann, "batches")
    table = "prompt,steps,seed,metadata.market\na hen,1,18446744073709551615,nordics\na cat,many,2,\n"
    begin(page, "table", {"table.csv": table.encode()})
    page.get_by_label("Workflow", exact=True).select_option("text_to_image")
    expect(page.get_by_role("alert")).to_contain_text("line 3, steps: takes a whole number")
    begin(page, "table", {"table.csv": table.replace("many", "1").encode()})
    expect(page.get_by_role("alert")).to_have_count(0)  # the file before is gone
    page.get_by_label("Workflow", exact=True).select_option("text_to_image")
    page.get_by_role("button", name="Run 2 rows").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("table")
    assert wait_until(lambda: ann.request("GET", "/api/v2/batches/table")["succeeded"] == 2)
    outputs = ann.request("GET", "/api/v2/batches/table/outputs")["outputs"]
    assert outputs[0]["metadata"]["market"] == "nordics"


def test_many_pictures_become_jobs_of_a_workflow(browsing: Browsing, ann: Person, samples: Samples) -> None:
    page = console(browsing, ann, "batches")
    begin(page, "pictures", {f"{color}.png": plain_picture(color) for color in ("red", "green", "blue")})
    expect(page.locator("main")).to_contain_text("3 of 3 uploaded")
    page.get_by_label("Workflow", exact=True).select_option("thumbnail")
    page.get_by_label("Width").fill("24")
    check_accessible(page, "new-batch")
    page.get_by_role("button", name="Run 3 jobs").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("pictures")
    assert wait_until(lambda: ann.request("GET", "/api/v2/batches/pictures")["succeeded"] == 3)
    outputs = ann.request("GET", "/api/v2/batches/pictures/outputs")["outputs"]
    assert sorted(one["metadata"]["file"] for one in outputs) == ["blue.png", "green.png", "red.png"]
    assert {one["width"] for one in outputs} == {24}


def test_lines_that_would_fail_are_told_before_anything_runs(browsing: Browsing, ann: Person, samples: Samples) -> None:
    page = console(browsing, ann, "batches")
    begin(page, "bad-lines", {"bad.jsonl": lines({"workflow": picture(1)}, {"workflow": "nowhere"})})
    browsing.watched(page).expect("422")
    page.get_by_role("button", name="Run every line").click()
    expect(page.get_by_role("alert")).to_contain_text("line 2:")
    page.get_by_role("button", name="Run the others").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("bad-lines")


def test_batches_of_others_are_not_there(
    browsing: Browsing, ann: Person, bob: Person, samples: Samples, samples_of_bob: Samples
) -> None:
    ann.request("POST", "/api/v2/batches", {"name": "of-ann", "lines": [{"workflow": picture(2)}]})
    page = console(browsing, bob, "batches")
    expect(page.get_by_role("heading", name="No batches yet")).to_be_visible()
    shoot(page, "batches-none", varying=["#who"])
    browsing.watched(page).expect("404")
    go(page, "batches/of-ann")
    expect(page.get_by_role("alert")).to_contain_text("there is no batch")


def test_the_list_says_how_far_each_is(browsing: Browsing, ann: Person, samples: Samples) -> None:
    ann.request("POST", "/api/v2/batches", {"name": "listed", "lines": [{"workflow": picture(4)}]})
    page = console(browsing, ann, "batches")
    expect(page.get_by_role("link", name="listed")).to_be_visible()
    check_accessible(page, "batches")


def test_a_packed_manifest_is_taken_as_it_is(browsing: Browsing, ann: Person, samples: Samples) -> None:
    content = io.BytesIO()
    with gzip.GzipFile(fileobj=content, mode="wb") as file:
        file.write(lines({"workflow": picture(5)}))
    page = console(browsing, ann, "batches")
    begin(page, "packed", {"packed.jsonl.gz": content.getvalue()})
    page.get_by_role("button", name="Run every line").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("packed")


def test_all_of_a_batch_is_written_into_the_file_that_is_chosen_under_names_that_lead_nowhere_else(
    browsing: Browsing, ann: Person, samples: Samples
) -> None:
    asked = [{"workflow": picture(1000 + number, size=16)} for number in range(len(NAMES))]
    ann.request("POST", "/api/v2/batches", {"name": "chosen", "lines": asked})
    assert wait_until(lambda: ann.request("GET", "/api/v2/batches/chosen")["status"] == "completed")
    outputs = ann.request("GET", "/api/v2/batches/chosen/outputs")["outputs"]
    assert len(outputs) == len(NAMES)
    contents = [requests.get(output["url"], timeout=PATIENCE_S).content for output in outputs]
    called = [{**output, "name": name, "line": 1} for output, name in zip(outputs, NAMES, strict=True)]

    page = browsing.open()
    page.add_init_script(PICKER)
    page.add_init_script(f"sessionStorage.setItem('{KEY}', {json.dumps(ann.key)})")
    page.route("**/batches/chosen/outputs*", lambda route: route.fulfill(json={"outputs": called}))
    page.goto("/#/batches/chosen")
    page.evaluate("() => picker.refuses.push('AbortError')")  # nobody chose a place
    page.get_by_role("button", name="Download all").click()
    page.get_by_role("button", name="Save the archive").click()
    page.wait_for_function("() => picker.asked.length === 1 && !document.querySelector('dialog [aria-busy]')")
    assert page.evaluate("() => picker.state") == "none"
    page.get_by_role("button", name="Save the archive").click()
    page.wait_for_function("() => picker.state === 'closed'")
    assert page.evaluate("() => picker.asked[1].suggestedName") == "chosen.zip"
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(page.evaluate(WRITTEN)))) as archive:
        assert archive.testzip() is None
        assert [archive.read(name) for name in archive.namelist()] == contents, "each file as it was made"
        names = archive.namelist()
    assert len({name.lower() for name in names}) == len(NAMES), "none takes the place of another, on any system"
    for name in names:
        assert not re.search(r'[\\\\:*?"<>|\x00-\x1f]|^/|(^|/)\.+(/|$)', name), name


def test_a_download_whose_connection_is_lost_leaves_no_half_archive_for_a_whole_one(
    browsing: Browsing, ann: Person, samples: Samples
) -> None:
    ann.request("POST", "/api/v2/batches", {"name": "halved", "lines": [{"workflow": picture(77)}]})
    assert wait_until(lambda: ann.request("GET", "/api/v2/batches/halved")["status"] == "completed")
    page = browsing.open()
    page.add_init_script(PICKER)
    page.add_init_script(f"sessionStorage.setItem('{KEY}', {json.dumps(ann.key)})")
    page.goto("/#/batches/halved")
    page.get_by_role("button", name="Download all").click()
    browsing.watched(page).expect("500")
    refusal = {"error": {"code": "internal_error", "message": "it is gone"}}
    page.route("**/batches/halved/outputs*", lambda route: route.fulfill(status=500, json=refusal))
    page.get_by_role("button", name="Save the archive").click()
    # Whatever is outside of an open dialog is behind it: nobody sees or hears it.
    expect(page.get_by_role("dialog").get_by_text("it is gone")).to_be_visible()
    assert page.evaluate("() => picker.state") == "aborted"
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.locator("body > #toasts")).to_have_count(1)
