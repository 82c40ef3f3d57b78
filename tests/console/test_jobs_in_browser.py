"""The console's jobs, one job and the gallery, in a real browser."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Page, Route, expect

from local.aws.template import name_of
from local.dev import DevStack
from tests.console.accessible import check_accessible
from tests.console.at_console import KEY, console, go
from tests.console.browsing import WIDE, Browsing
from tests.console.pictures import shoot
from tests.console.samples import HOSTILE, Person, Samples, picture
from tests.patience import PATIENCE_S
from tests.typescript import NODE

#: What of a list of jobs the tests of many rows answer themselves.
LIST = re.compile(r"/api/v2/jobs\?")
DROPS = name_of("InputBucket")


def rows(page: Page) -> Any:
    return page.get_by_role("list", name="Jobs").get_by_role("listitem")


def is_as_wide_as_its_window(page: Page) -> bool:
    """Whether nothing of the page is beside the window of a small phone."""
    page.set_viewport_size({"width": 360, "height": 740})
    wide: int = page.evaluate("() => document.documentElement.scrollWidth")
    page.set_viewport_size(WIDE)
    return wide <= 360


def row(page: Page, job_id: str) -> Any:
    return page.locator(f"li[data-key='{job_id}']")


# The key.


def test_a_key_is_asked_for_and_is_in_this_tab_only(browsing: Browsing, ann: Person, samples: Samples) -> None:
    page = browsing.open("/")
    dialog = page.get_by_role("dialog", name="Your key")
    expect(dialog).to_be_visible()
    browsing.watched(page).expect("401|403")
    dialog.get_by_label("API key").fill("made-up")
    dialog.get_by_role("button", name="Open").click()
    expect(dialog.get_by_role("alert")).to_contain_text("does not work")
    dialog.get_by_label("API key").fill(ann.key)
    dialog.get_by_role("button", name="Open").click()
    expect(row(page, samples.labeled)).to_be_visible()
    expect(page.locator("#who")).to_contain_text(ann.owner)
    assert ann.key not in page.url
    assert page.evaluate("() => [localStorage.length, document.cookie]") == [0, ""]
    assert page.evaluate(f"() => sessionStorage.getItem('{KEY}')") == ann.key
    page.locator("#who button").click()
    page.get_by_role("button", name="Forget the key").click()
    expect(dialog).to_be_visible()
    expect(row(page, samples.labeled)).to_have_count(0)
    assert page.evaluate("() => sessionStorage.length") == 0


def test_the_key_of_make_dev_is_on_a_button(browsing: Browsing, samples: Samples) -> None:
    page = browsing.open("/")
    page.get_by_role("button", name="development key").click()
    expect(row(page, samples.labeled)).to_be_visible()


# The list.


def test_jobs_show_their_pictures_and_what_went_wrong(browsing: Browsing, ann: Person, samples: Samples) -> None:
    page = console(browsing, ann, "jobs")
    expect(row(page, samples.failed)).to_contain_text("node_execution_error")
    expect(row(page, samples.named)).to_contain_text("text_to_image")
    expect(row(page, samples.labeled).locator("img")).to_have_js_property("complete", True)
    expect(row(page, samples.hostile)).to_contain_text(HOSTILE)
    expect(page.locator(".live-mode")).to_have_text("live")


def test_filters_are_in_the_address(browsing: Browsing, ann: Person, samples: Samples) -> None:
    page = console(browsing, ann, "jobs")
    page.get_by_role("group", name="Status").get_by_role("button", name="failed").click()
    expect(row(page, samples.labeled)).to_have_count(0)
    expect(row(page, samples.failed)).to_be_visible()
    assert page.url.endswith("#/jobs?status=failed")
    go(page, "jobs?label=campaign=autumn")
    expect(row(page, samples.labeled)).to_be_visible()
    expect(row(page, samples.failed)).to_have_count(0)
    page.get_by_label("Filter by a label").fill("market=nowhere")
    page.get_by_label("Filter by a label").press("Enter")
    expect(page.get_by_role("heading", name="No job fits")).to_be_visible()
    page.get_by_role("button", name="Show all").click()
    expect(row(page, samples.failed)).to_be_visible()


def test_what_runs_moves_and_is_canceled_by_a_key(
    browsing: Browsing, ann: Person, samples: Samples, start_long: Callable[[], str]
) -> None:
    page = console(browsing, ann, "jobs")
    expect(page.locator(".live-mode")).to_have_text("live")
    running = start_long()
    expect(row(page, running)).to_contain_text("running")
    far = row(page, running).get_by_role("progressbar")
    expect(far).not_to_have_attribute("aria-valuenow", "0")
    expect(row(page, running)).to_contain_text("Sampler")
    row(page, running).get_by_role("link").first.focus()
    page.keyboard.press("c")
    expect(row(page, running)).to_contain_text("canceled")


def test_arrow_keys_move_through_the_list_and_r_runs_again(browsing: Browsing, ann: Person, samples: Samples) -> None:
    page = console(browsing, ann, "jobs?label=campaign=autumn&label=market=nordics")
    expect(row(page, samples.labeled)).to_be_visible()
    before = rows(page).count()
    row(page, samples.labeled).get_by_role("link").first.focus()
    page.keyboard.press("r")
    expect(page.locator("#toasts")).to_contain_text("It runs again")
    expect(rows(page)).to_have_count(before + 1)
    page.keyboard.press("ArrowUp")
    assert page.evaluate("() => document.activeElement.closest('li').getAttribute('aria-posinset')") == str(before)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Job ")


def test_what_came_as_a_drop_runs_again(browsing: Browsing, ann: Person, samples: Samples, stack: DevStack) -> None:
    """A file in the bucket is a job as any other: its request, and the picture that was dropped, are used again."""
    ann.end_of(samples.named)
    asked = {"job_id": "dropped-request", "workflow": picture(0x0A0B0C, size=24), "metadata": {"came": "as-a-drop"}}
    content = io.BytesIO()
    Image.new("RGB", (64, 48), "teal").save(content, "PNG")
    s3 = stack.aws.client()
    s3.put_object(Bucket=DROPS, Key="jobs/a request.json", Body=json.dumps(asked).encode())
    s3.put_object(Bucket=DROPS, Key="images/thumbnail/teal ü.png", Body=content.getvalue())
    page = console(browsing, ann, "jobs")
    first = row(page, "dropped-request")
    expect(first).to_contain_text("succeeded")
    dropped = page.locator("li.job[data-key^='teal-']")
    for job in (first, dropped):
        expect(job).to_contain_text("succeeded")
        before = ann.job(job.get_attribute("data-key") or "")
        job.get_by_role("button", name="Run again").click()
        link = page.locator("#toasts").get_by_role("link").last
        expect(link).to_be_visible()
        again = ann.end_of((link.get_attribute("href") or "").rpartition("/")[2])
        assert again["status"] == "succeeded", again["error"]
        assert again["id"] != before["id"]
        assert again["metadata"] == before["metadata"]
        sizes = [[(one["name"], one["width"], one["height"]) for one in made["outputs"]] for made in (before, again)]
        assert sizes[0] == sizes[1] != []
        expect(row(page, again["id"])).to_contain_text("succeeded")
        expect(page.locator("#toasts .toast")).to_have_count(0)  # of the one before


def test_nobody_sees_what_is_another_owner_s(
    browsing: Browsing, ann: Person, bob: Person, samples: Samples, samples_of_bob: Samples
) -> None:
    page = console(browsing, bob, "jobs")
    expect(row(page, samples_of_bob.labeled)).to_be_visible()
    expect(row(page, samples.labeled)).to_have_count(0)
    browsing.watched(page).expect("404")
    go(page, f"jobs/{samples.labeled}")
    expect(page.get_by_role("alert")).to_contain_text("there is no job")
    go(page, "gallery")
    expect(page.get_by_role("listitem").first).to_be_visible()
    shown = page.evaluate(
        "() => [...document.querySelectorAll('[data-id]')].map((one) => one.dataset.id.split('/')[0])"
    )
    assert not {*shown} & {*samples.succeeded, samples.labeled, samples.hostile, samples.named}


def test_a_thousand_jobs_are_a_few_rows_of_the_page(browsing: Browsing, ann: Person) -> None:
    page = browsing.open()
    page.route(LIST, many(1200))
    page.add_init_script(f"sessionStorage.setItem('{KEY}', {json.dumps(ann.key)})")
    page.goto("/#/jobs?label=campaign=long")  # none of the stream's
    expect(rows(page).first).to_be_visible()
    for _ in range(200):
        page.mouse.wheel(0, 1500)
        if page.get_by_text("Poster 1199").count():
            break
        page.wait_for_timeout(20)
    expect(page.get_by_text("Poster 1199")).to_be_visible()
    assert rows(page).count() < 60
    assert rows(page).first.get_attribute("aria-setsize") == "1200"
    assert page.evaluate(MOST_ROWS) < 60, "at no moment of scrolling through all of them"


#: How many rows of the list there are at most, in any frame while the page scrolls from its end to its beginning.
MOST_ROWS = """async () => {
  const height = document.body.scrollHeight;
  let most = 0;
  for (let turn = 0; turn <= 100; turn += 1) {
    window.scrollTo(0, height * (1 - turn / 100));
    await new Promise((then) => requestAnimationFrame(() => requestAnimationFrame(then)));
    most = Math.max(most, document.querySelectorAll("ul.windowed li").length);
  }
  return most;
}"""


def many(count: int) -> Callable[[Route], None]:
    """Answers pages of a list of so many jobs."""

    def answer(route: Route) -> None:
        match = re.search(r"cursor=(\d+)", route.request.url)
        start = int(match[1]) if match else 0
        jobs: list[dict[str, Any]] = [
            {
                "id": f"job-{number:04}",
                "status": ("succeeded", "failed", "canceled")[number % 3],
                "created_at": f"2026-11-{30 - number // 100:02}T12:{59 - number % 60:02}:00.{999 - number % 100:03}Z",
                "metadata": {"workflow": f"Poster {number}", "campaign": "long"},
                "outputs": [],
                "error": None,
            }
            for number in range(start, min(count, start + 100))
        ]
        more = {"next_cursor": str(start + 100)} if start + 100 < count else {}
        route.fulfill(json={"jobs": jobs, **more})

    return answer


def test_a_lost_connection_is_told_and_healed(browsing: Browsing, ann: Person, samples: Samples) -> None:
    page = console(browsing, ann, "jobs")
    expect(row(page, samples.labeled)).to_be_visible()
    browsing.watched(page).expect("ERR_INTERNET_DISCONNECTED")
    page.context.set_offline(True)
    go(page, "gallery")
    expect(page.locator("#banner")).to_contain_text("connection is lost")
    page.context.set_offline(False)
    expect(page.locator("#banner")).to_be_empty()
    expect(page.get_by_role("list", name="Outputs").get_by_role("listitem").first).to_be_visible()


def test_an_api_without_a_stream_is_asked_again_and_again(browsing: Browsing, ann: Person, samples: Samples) -> None:
    page = browsing.open()
    page.route(
        "**/api/v2/events*",
        lambda route: route.fulfill(status=404, json={"error": {"code": "not_found", "message": "none"}}),
    )
    browsing.watched(page).expect("404")
    page.add_init_script(f"sessionStorage.setItem('{KEY}', {json.dumps(ann.key)})")
    page.goto("/#/jobs?label=campaign=polled")
    expect(page.locator(".live-mode")).to_have_text("every 2 s")
    made = ann.submit(picture(0x445566), metadata={"campaign": "polled"})
    expect(row(page, made)).to_contain_text("succeeded")


# One job.


def test_a_failed_job_says_where_and_why(browsing: Browsing, ann: Person, samples: Samples) -> None:
    page = console(browsing, ann, f"jobs/{samples.failed}")
    error = page.get_by_role("region", name="Error")
    expect(error).to_contain_text("node_execution_error")
    expect(error).to_contain_text("node 2 ImageBlur")
    expect(error.locator("pre").first).not_to_be_visible()
    error.get_by_text("Traceback").click()
    expect(error.locator("pre").first).to_be_visible()
    expect(page.locator("svg.graph .failed")).to_have_attribute("data-node", "2")
    expect(page.locator("svg.graph")).to_have_attribute("aria-label", re.compile("node 2 .ImageBlur. failed"))
    check_accessible(page, "job-failed")
    assert is_as_wide_as_its_window(page)
    error.get_by_text("Traceback").click()  # it names the folders of this machine
    shoot(page, "job-failed", varying=[".id", "h1"])


def test_a_job_shows_what_it_made_large_and_by_keys(browsing: Browsing, ann: Person, samples: Samples) -> None:
    page = console(browsing, ann, f"jobs/{samples.labeled}")
    page.get_by_role("button", name="Open SaveImage").first.click()
    light = page.get_by_role("dialog")
    expect(light.get_by_role("img")).to_have_js_property("naturalWidth", 256)
    expect(light.get_by_role("status")).to_contain_text("1 of 3")
    page.keyboard.press("ArrowRight")
    expect(light.get_by_role("status")).to_contain_text("2 of 3")
    with page.expect_download() as download:
        light.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename.endswith(".png")
    check_accessible(page, "lightbox")
    page.keyboard.press("Escape")
    expect(light).to_have_count(0)
    assert page.evaluate("() => document.activeElement.className") == "piece-open", "the focus is back"


def test_a_job_that_runs_shows_its_preview_and_its_node(
    browsing: Browsing, ann: Person, start_long: Callable[[], str]
) -> None:
    running = start_long()
    page = console(browsing, ann, f"jobs/{running}")
    live = page.get_by_role("region", name="Progress")
    expect(live).to_contain_text("Sampler")
    expect(live.get_by_role("img")).to_be_visible()
    expect(page.locator("svg.graph .running")).to_have_attribute("data-node", "3")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("heading", level=1).locator("xpath=following-sibling::span[1]")).to_contain_text("canceled")
    expect(live).to_have_count(0)


def test_hostile_names_run_nothing(browsing: Browsing, ann: Person, samples: Samples) -> None:
    page = console(browsing, ann, f"jobs/{samples.hostile}")
    expect(page.get_by_role("complementary")).to_contain_text(HOSTILE)
    expect(page.locator("svg.graph .node")).to_have_count(2)
    assert page.locator("img[src=x]").count() == 0
    page.get_by_text("As a program").click()
    expect(page.locator(".fold pre")).to_contain_text("<svg onload=alert(1)>")
    go(page, "gallery?type=image")
    expect(page.get_by_role("list", name="Outputs").get_by_role("listitem").first).to_be_visible()


def test_three_hundred_nodes_cost_ten_times_what_thirty_do(browsing: Browsing, ann: Person, samples: Samples) -> None:
    """Counted, not timed: how often each piece of the module runs. With the square of the nodes it were 100 times."""
    page = browsing.open()
    nodes = {
        str(number): {
            "class_type": "Node",
            "inputs": {"a": [str(number // 2), 0], "b": [str(number - 1), 0]} if number else {},
        }
        for number in range(300)
    }
    page.route("**/workflow", lambda route: route.fulfill(json={"workflow": nodes, "format": "api"}))
    page.add_init_script(f"sessionStorage.setItem('{KEY}', {json.dumps(ann.key)})")
    page.goto(f"/#/jobs/{samples.labeled}")
    expect(page.locator("svg.graph .node")).to_have_count(300)
    few, all_of_them = (steps_of_drawing(page, dict([*nodes.items()][:count])) for count in (30, 300))
    assert 1_000 < few < all_of_them < 15 * few


def steps_of_drawing(page: Page, nodes: dict[str, Any]) -> int:
    """How often the pieces of graph.js run, all together, to draw a workflow in one go."""
    profiler = page.context.new_cdp_session(page)
    profiler.send("Profiler.enable")
    profiler.send("Profiler.startPreciseCoverage", {"callCount": True, "detailed": True})
    drawn = page.evaluate(
        """async (nodes) => {
          const { graphView } = await import("/console/graph.js");
          return graphView(nodes).element.querySelectorAll(".node").length;
        }""",
        nodes,
    )
    assert drawn == len(nodes), "all are there when the call returns"
    told = profiler.send("Profiler.takePreciseCoverage")
    profiler.detach()
    return sum(
        piece["count"]
        for script in told["result"]
        if "/console/graph.js" in script["url"]
        for function in script["functions"]
        for piece in function["ranges"]
    )


@pytest.mark.parametrize("kind", ["curl", "python", "typescript"])
def test_a_job_as_a_program_runs_as_it_stands(
    browsing: Browsing, ann: Person, samples: Samples, tmp_path: Path, kind: str
) -> None:
    page = console(browsing, ann, f"jobs/{samples.hostile}")
    page.get_by_text("As a program").click()
    page.locator(f"[data-kind={kind}]").click()
    program = page.locator(".fold pre").text_content() or ""
    assert ann.key not in program
    path = tmp_path / {"curl": "run.sh", "python": "run.py", "typescript": "run.mts"}[kind]
    path.write_text(program, encoding="utf-8")
    runner = {"curl": "sh", "python": sys.executable, "typescript": str(NODE)}[kind]
    environment = {"PATH": os.environ["PATH"], "COMFY_API_KEY": ann.key, "HOME": str(tmp_path)}
    done = subprocess.run(
        [runner, path], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    newest = ann.request("GET", "/api/v2/jobs?limit=1")["jobs"][0]
    assert newest["id"] != samples.hostile
    assert newest["metadata"] == {"note": HOSTILE}
    assert ann.end_of(newest["id"])["status"] == "succeeded"


# The gallery, and everybody.


def test_the_gallery_filters_and_opens_by_keys(browsing: Browsing, ann: Person, samples: Samples) -> None:
    page = console(browsing, ann, "gallery?workflow=text_to_image")
    outputs = page.get_by_role("list", name="Outputs").get_by_role("listitem")
    expect(outputs.first).to_be_visible()
    shown = page.evaluate(
        "() => [...document.querySelectorAll('[data-id]')].map((one) => one.dataset.id.split('/')[0])"
    )
    assert samples.named in shown
    assert samples.labeled not in shown
    outputs.first.get_by_role("button").focus()
    page.keyboard.press("Enter")
    light = page.get_by_role("dialog")
    expect(light.get_by_role("link", name="Run again with changes")).to_have_attribute(
        "href", re.compile(r"#/run/text_to_image\?from=")
    )
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Videos").click()
    expect(page.get_by_role("heading", name="Nothing fits")).to_be_visible()


@pytest.mark.parametrize("path", ["jobs", "gallery"])
def test_everybody_can_use_the_lists(browsing: Browsing, bob: Person, samples_of_bob: Samples, path: str) -> None:
    page = console(browsing, bob, path)
    expect(page.get_by_role("listitem").first).to_be_visible()
    check_accessible(page, path)
    assert is_as_wide_as_its_window(page)
    shoot(page, path, varying=[".id", ".live-mode"])


def test_a_job_can_be_read_by_everybody(browsing: Browsing, bob: Person, samples_of_bob: Samples) -> None:
    page = console(browsing, bob, f"jobs/{samples_of_bob.named}")
    expect(page.locator("svg.graph .node").first).to_be_visible()
    page.locator(".fold").last.locator("summary").click()
    expect(page.locator(".fold pre").last).to_contain_text("curl")
    check_accessible(page, "job")
    assert is_as_wide_as_its_window(page)
    page.locator(".fold").last.locator("summary").click()
    shoot(page, "job", varying=[".id", ".phases"])
