"""Run: from a form, or a dropped file, to the picture; and what is wrong is said at its field."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest
import requests
from PIL import Image
from playwright.sync_api import Page, Route, expect

from tests.console.accessible import check_accessible
from tests.console.at_console import KEY, Held, comes, console, drop, go
from tests.console.browsing import WIDE, Browsing
from tests.console.pictures import shoot
from tests.console.samples import HOSTILE, Person, Samples, picture
from tests.patience import PATIENCE_S
from tests.unit import editor_samples

SEED = 18446744073709551615


def plain_picture(color: str = "orange") -> bytes:
    """A picture without a workflow inside."""
    content = io.BytesIO()
    Image.new("RGB", (64, 48), color).save(content, "PNG")
    return content.getvalue()


def press_run(page: Page) -> None:
    page.get_by_role("button", name="Run", exact=True).click()


def job_of_first_run(page: Page, person: Person) -> Any:
    """The job of the newest run, once it shows that it has ended."""
    card = page.locator(".run").first
    expect(card.locator(".status")).to_have_text(re.compile("succeeded|failed"))
    link = card.get_by_role("link", name="Open").get_attribute("href")
    assert link is not None
    return person.end_of(link.rpartition("/")[2])


def graph_of(person: Person, job: Any) -> Any:
    return person.request("GET", f"/api/v2/jobs/{job['id']}/workflow")["workflow"]


def an_hour_later(route: Route) -> None:
    """A job, as in a tab that was open for long: its links have ended."""
    told = route.fetch().json()
    for output in told["outputs"]:
        output.update(url=output["url"].replace("?", ".ended?", 1), url_expires_at="2020-01-01T00:00:00Z")
    route.fulfill(json=told)


def test_a_form_becomes_a_picture(browsing: Browsing, ann: Person, samples: Samples) -> None:
    page = console(browsing, ann, "run")
    page.get_by_role("link", name="text_to_image").click()
    page.get_by_label("Prompt", exact=True).fill("a red fox\nin the snow")
    page.get_by_label("Steps").fill("3")
    page.get_by_label("Seed", exact=True).fill(str(SEED))
    press_run(page)
    job = job_of_first_run(page, ann)

    expect(page.locator(".run .made img")).to_be_visible()
    graph = graph_of(ann, job)
    assert graph["6"]["inputs"]["text"] == "a red fox\nin the snow"
    assert (graph["3"]["inputs"]["seed"], graph["3"]["inputs"]["steps"]) == (SEED, 3), "a seed keeps all its digits"
    assert job["metadata"]["workflow"] == "text_to_image"
    check_accessible(page, "run")


def test_what_a_run_has_made_is_shown_and_opened_by_a_link_of_now(
    browsing: Browsing, ann: Person, samples: Samples
) -> None:
    page = console(browsing, ann, "run/text_to_image")
    browsing.watched(page).expect(r"404.*\.ended")
    page.route("**/api/v2/jobs/*", an_hour_later)
    page.get_by_label("Steps").fill("2")
    press_run(page)
    page.wait_for_function("() => document.querySelector('.run .made img')?.naturalWidth > 0")
    with page.context.expect_page() as opened:
        page.locator(".run .made a").click()
    browsing.watched(opened.value).expect("favicon")  # of S3's own page
    opened.value.wait_for_load_state()
    assert ".ended" not in opened.value.url
    assert opened.value.locator("img").count() == 1, "the picture, and no refusal of S3"


def test_what_a_run_has_made_and_is_gone_is_told_and_not_asked_for_without_end(
    browsing: Browsing, ann: Person, samples: Samples
) -> None:
    page = console(browsing, ann, "run/text_to_image")
    browsing.watched(page).expect(r"404.*(\.ended|/outputs)")
    allowed = {"access-control-allow-origin": "*"}
    page.context.route(re.compile(r"\.ended"), lambda route: route.fulfill(status=404, headers=allowed, body="gone"))
    page.route("**/api/v2/jobs/*", an_hour_later)
    refusal = {"error": {"code": "not_found", "message": "there is no such job"}}
    page.route("**/api/v2/jobs/*/outputs*", lambda route: route.fulfill(status=404, json=refusal))
    page.get_by_label("Steps").fill("2")
    press_run(page)
    link = page.locator(".run .made a")
    link.click()
    expect(page.locator("#toasts")).to_contain_text("there is no such job")
    page.route("**/api/v2/jobs/*/outputs*", lambda route: route.fulfill(json={"outputs": []}))
    with page.context.expect_page() as opened:
        link.click()
    browsing.watched(opened.value).expect("favicon")
    browsing.watched(opened.value).expect(r"404.*\.ended")
    opened.value.wait_for_load_state()
    assert ".ended" in opened.value.url, "S3 says that it is gone"


def test_what_runs_moves_and_shows_previews(browsing: Browsing, ann: Person, samples: Samples) -> None:
    page = console(browsing, ann, "run/text_to_image")
    page.get_by_label("Steps").fill("400")
    page.get_by_label("New each time").check()
    press_run(page)
    card = page.locator(".run").first
    expect(card.locator("img.preview")).to_be_visible()
    assert int(card.get_by_role("progressbar").get_attribute("aria-valuenow") or 0) > 0
    card.get_by_role("button", name="Cancel").click()
    expect(card.locator(".status")).to_have_text("canceled")


def test_several_runs_wait_in_a_row_and_a_drawn_seed_can_be_kept(
    browsing: Browsing, ann: Person, samples: Samples
) -> None:
    page = console(browsing, ann, "run/text_to_image")
    page.get_by_label("Steps").fill("1")
    page.get_by_label("New each time").check()
    page.get_by_label("How many times").fill("3")
    press_run(page)
    expect(page.locator(".run .succeeded")).to_have_count(3)
    first = page.locator(".run").first
    seed = first.locator(".foot code").inner_text()
    first.get_by_role("button", name="Keep this seed").click()
    expect(page.get_by_label("Seed", exact=True)).to_have_value(seed)
    expect(page.get_by_label("New each time")).not_to_be_checked()
    page.reload()
    expect(page.locator(".run .succeeded")).to_have_count(3)


def test_what_does_not_fit_is_said_at_its_field_and_sends_nothing(
    browsing: Browsing, ann: Person, samples: Samples
) -> None:
    page = console(browsing, ann, "run/thumbnail")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if request.method == "POST" else None)
    page.get_by_label("Width").fill("1.5")
    press_run(page)
    expect(page.locator("[data-field=width] .problem")).to_have_text("takes a whole number, and this is none")
    expect(page.locator("[data-field=photo] .problem")).to_have_text("is needed")
    expect(page.get_by_label("Width")).to_have_attribute("aria-invalid", "true")
    assert sent == []
    check_accessible(page, "run-problems")


def test_what_the_api_refuses_is_said_at_its_field_too(browsing: Browsing, ann: Person, samples: Samples) -> None:
    page = console(browsing, ann, "run/text_to_image")
    page.get_by_label("Steps").wait_for()
    told = {
        "code": "invalid_request",
        "message": "no",
        "details": {
            "errors": [
                {"field": "inputs.steps", "problem": "is too large"},
                {"field": "metadata", "problem": HOSTILE},
            ]
        },
    }

    def refuse(route: Route) -> None:
        route.fulfill(status=422, json={"error": told})

    browsing.watched(page).expect("422")
    page.route("**/runs*", refuse)
    press_run(page)
    expect(page.locator("[data-field=steps] .problem")).to_have_text("is too large")
    expect(page.get_by_role("alert").filter(has_text=HOSTILE)).to_be_visible()


@pytest.mark.parametrize("height", [WIDE["height"], 500])
def test_a_refusal_of_no_field_is_seen_at_the_button_however_long_the_form_is(
    browsing: Browsing, ann: Person, samples: Samples, height: int
) -> None:
    page = console(browsing, ann, "run/text_to_image", viewport={"width": WIDE["width"], "height": height})
    expect(page.get_by_label("Prompt", exact=True)).to_be_visible()
    browsing.watched(page).expect("ERR_INTERNET_DISCONNECTED")
    page.context.set_offline(True)
    press_run(page)
    refusal = page.get_by_role("alert").filter(has_text="The API cannot be reached.")
    expect(refusal).to_be_in_viewport(ratio=1)
    seen = refusal.evaluate(
        "(it) => { const box = it.getBoundingClientRect();"
        "  return it.contains(document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2)); }"
    )
    assert seen, "nothing lies over it"
    page.context.set_offline(False)
    press_run(page)
    expect(refusal).to_have_count(0)


def test_a_dropped_picture_opens_the_workflow_in_it(browsing: Browsing, ann: Person, samples: Samples) -> None:
    output = ann.job(samples.named)["outputs"][0]
    content = requests.get(output["url"], timeout=PATIENCE_S).content
    page = console(browsing, ann, "run")
    page.get_by_role("link", name="thumbnail").wait_for()
    drop(page, "main", {f"{HOSTILE[:20]}.png": content})
    expect(page.get_by_role("heading", level=1)).to_have_text(f"{HOSTILE[:20]}.png")
    page.get_by_label("Prompt", exact=True).fill("dropped")
    page.get_by_label("Steps").fill("1")
    press_run(page)
    assert graph_of(ann, job_of_first_run(page, ann))["6"]["inputs"]["text"] == "dropped"
    check_accessible(page, "run-dropped")


def test_a_dropped_file_of_the_editor_runs_and_is_kept_under_a_name(
    browsing: Browsing, ann: Person, samples: Samples
) -> None:
    page = console(browsing, ann, "run")
    page.get_by_role("link", name="thumbnail").wait_for()
    drop(page, "main", {"From the editor.json": json.dumps(editor_samples.plain(color=7)).encode()})
    page.get_by_label("Width").fill("32")
    press_run(page)
    job = job_of_first_run(page, ann)
    assert [(output["width"], output["height"]) for output in job["outputs"]] == [(32, job["outputs"][0]["height"])]
    page.get_by_role("button", name="Keep it under a name").click()
    page.get_by_role("textbox", name="Name").fill("of-the-editor")
    page.get_by_role("button", name="Keep", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("of-the-editor")
    assert ann.request("GET", "/api/v2/workflows/of-the-editor")["latest"] == 1


def test_what_a_dropped_workflow_lacks_is_said_before_it_runs(
    browsing: Browsing, ann: Person, samples: Samples
) -> None:
    graph = picture(1)
    graph["3"] = {"class_type": HOSTILE, "inputs": {"image": ["1", 0]}}
    graph["2"]["inputs"]["images"] = ["3", 0]
    page = console(browsing, ann, "run")
    page.get_by_role("link", name="thumbnail").wait_for()
    drop(page, "main", {"lacks.json": json.dumps(graph).encode()})
    expect(page.locator(".notice.bad").first).to_contain_text("It would not run here")
    expect(page.locator(".notice.bad").first).to_contain_text(HOSTILE[:30])
    check_accessible(page, "run-lacks")


def test_a_file_goes_into_a_job_and_is_remembered_for_nobody_else(
    browsing: Browsing, ann: Person, bob: Person, samples: Samples, samples_of_bob: Samples
) -> None:
    page = console(browsing, ann, "run/thumbnail")
    page.locator(".kind-file .drop").wait_for()
    drop(page, ".kind-file .drop", {"notes.txt": b"hello", "fox.png": plain_picture()})
    expect(page.locator("[data-field=photo]")).to_contain_text("takes a picture")
    page.get_by_role("button", name="Remove notes.txt").click()
    page.get_by_label("Width").fill("32")
    expect(page.locator(".files img")).to_have_count(1)
    expect(page.locator(".files .bar")).to_have_count(0)
    press_run(page)
    assert job_of_first_run(page, ann)["outputs"][0]["width"] == 32
    page.reload()
    expect(page.locator(".files .name")).to_contain_text("fox.png")
    expect(page.get_by_label("Width")).to_have_value("32")
    page.evaluate("([name, key]) => sessionStorage.setItem(name, key)", [KEY, bob.key])
    page.reload()
    expect(page.get_by_label("Width")).to_have_value("256")
    expect(page.locator(".files .name")).to_have_count(0)
    expect(page.locator(".run")).to_have_count(0)
    assert "fox.png" not in page.evaluate("() => JSON.stringify({...sessionStorage, ...localStorage})")


def test_a_button_that_is_pressed_while_an_upload_ends_still_does_its_work(
    browsing: Browsing, ann: Person, samples: Samples
) -> None:
    page = console(browsing, ann, "run/thumbnail")
    page.locator(".kind-file .drop").wait_for()
    uploads = Held(page, "**/api/v2/assets")
    drop(page, ".kind-file .drop", {"notes.txt": b"hello", "fox.png": plain_picture()})
    expect(page.locator(".files .bar")).to_have_count(1)
    page.get_by_role("button", name="Remove notes.txt").hover()
    page.mouse.down()
    assert comes(page, lambda: uploads.asked("POST"))
    uploads.release()
    expect(page.locator(".files .bar")).to_have_count(0)
    page.mouse.up()
    expect(page.locator(".files li")).to_have_count(1)
    expect(page.locator(".files .name")).to_contain_text("fox.png")


def test_the_button_of_a_file_whose_own_upload_ends_keeps_its_press_and_its_focus(
    browsing: Browsing, ann: Person, samples: Samples
) -> None:
    page = console(browsing, ann, "run/thumbnail")
    page.locator(".kind-file .drop").wait_for()
    uploads = Held(page, "**/api/v2/assets")
    drop(page, ".kind-file .drop", {"fox.png": plain_picture()})
    expect(page.locator(".files .bar")).to_have_count(1)
    remove = page.get_by_role("button", name="Remove fox.png")
    remove.focus()
    remove.hover()
    page.mouse.down()
    assert comes(page, lambda: uploads.asked("POST"))
    uploads.release()
    expect(page.locator(".files .bar")).to_have_count(0)
    expect(remove).to_be_focused()
    page.mouse.up()
    expect(page.locator(".files li")).to_have_count(0)


def test_a_picture_without_a_workflow_becomes_the_input_of_the_open_form(
    browsing: Browsing, ann: Person, samples: Samples
) -> None:
    page = console(browsing, ann, "run/thumbnail")
    page.locator(".kind-file").wait_for()
    browsing.watched(page).expect("422")
    drop(page, "main", {"hen.png": plain_picture()})
    expect(page.locator(".files .name")).to_contain_text("hen.png")
    go(page, "run")
    page.get_by_role("link", name="text_to_image").wait_for()
    drop(page, "main", {"hen.png": plain_picture()})
    expect(page.get_by_role("alert")).to_contain_text("hen.png")


def test_an_upload_and_an_output_can_be_chosen(browsing: Browsing, ann: Person, samples: Samples) -> None:
    page = console(browsing, ann, "run/thumbnail")
    page.get_by_role("button", name="Outputs").click()
    tile = page.locator("dialog .tile").first
    tile.wait_for()
    check_accessible(page, "run-chooser")
    tile.click()
    expect(page.locator(".files li")).to_have_count(1)
    press_run(page)
    assert job_of_first_run(page, ann)["status"] == "succeeded"


def test_an_earlier_job_fills_the_form(browsing: Browsing, ann: Person, samples: Samples) -> None:
    given = {"inputs": {"prompt": "from before", "seed": SEED, "steps": 2}}
    job = ann.request("POST", "/api/v2/workflows/text_to_image/runs", given)
    page = console(browsing, ann, f"run/text_to_image?from={job['id']}")
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("from before")
    expect(page.get_by_label("Seed", exact=True)).to_have_value(str(SEED))
    drawn = ann.request("POST", "/api/v2/workflows/text_to_image/runs", {"inputs": {"seed": -1, "steps": 1}})
    seed = ann.end_of(drawn["id"])["seeds"]["3.seed"]
    go(page, f"run/text_to_image?from={drawn['id']}")
    expect(page.get_by_label("Seed", exact=True)).to_have_value(str(seed))
    browsing.watched(page).expect("404")
    go(page, f"run/no-such-workflow?from={samples.succeeded[1]}")
    expect(page.get_by_role("heading", level=1)).to_contain_text(samples.succeeded[1][:8])
    go(page, f"run?from={samples.succeeded[0]}")
    expect(page.get_by_role("heading", level=1)).to_contain_text(samples.succeeded[0][:8])
    expect(page.get_by_label("Width")).to_have_value("256")
    ann.end_of(job["id"])


def test_another_owner_s_job_and_workflow_are_not_there(
    browsing: Browsing, bob: Person, samples: Samples, samples_of_bob: Samples, ann: Person
) -> None:
    ann.request("PUT", "/api/v2/workflows/only-anns", {"workflow": picture(3)})
    page = console(browsing, bob, "run/only-anns")
    browsing.watched(page).expect("404")
    expect(page.get_by_role("alert")).to_contain_text("there is no workflow")
    go(page, f"run?from={samples.named}")
    expect(page.get_by_role("alert")).to_contain_text("there is no job")


def test_texts_of_a_workflow_run_nothing(browsing: Browsing, ann: Person, samples: Samples) -> None:
    color = {"target": "1.color", "title": HOSTILE, "description": HOSTILE}
    body = {"workflow": picture(255), "inputs": {"color": color}, "description": HOSTILE}
    ann.request("PUT", "/api/v2/workflows/hostile-form", body)
    page = console(browsing, ann, "run/hostile-form")
    expect(page.get_by_label(HOSTILE, exact=True)).to_have_value("255")
    expect(page.locator("main img")).to_have_count(0)


def test_one_of_many_choices_is_found_with_the_keyboard(browsing: Browsing, ann: Person, samples: Samples) -> None:
    names = [f"folder/model {letter}{number}.safetensors" for letter in "ab" for number in range(20)]
    schema = {"properties": {"model": {"type": "string", "enum": names, "default": names[0]}}}
    told = {"name": "many", "source": "own", "latest": 1, "aliases": {}, "version": 1, "inputs": [], "schema": schema}
    sent: list[Any] = []

    def take(route: Route) -> None:
        sent.append(route.request.post_data_json)
        route.fulfill(status=422, json={"error": {"code": "stop", "message": "enough"}})

    page = console(browsing, ann, "usage")
    page.route("**/api/v2/workflows/many", lambda route: route.fulfill(json=told))
    page.route("**/api/v2/workflows/many/runs*", take)
    go(page, "run/many")
    field = page.get_by_role("combobox", name="Model")
    field.click()
    options = page.get_by_role("listbox", name="Model").get_by_role("option")  # the page has others
    expect(options).to_have_count(40)
    check_accessible(page, "run-choices")
    field.press_sequentially("B 17")
    expect(options).to_have_text(["folder/model b17.safetensors"])
    field.press("ArrowDown")
    field.press("Enter")
    expect(field).to_have_value("folder/model b17.safetensors")
    expect(field).to_have_attribute("aria-expanded", "false")
    browsing.watched(page).expect("422")
    field.press("Control+Enter")
    expect(page.get_by_role("alert")).to_have_text("enough")
    assert sent[0]["inputs"] == {"model": "folder/model b17.safetensors"}
    field.fill("none of them")
    press_run(page)
    expect(page.locator("[data-field=model] .problem")).to_have_text("is none of the choices")


@pytest.mark.parametrize("path", ["run", "run/text_to_image"])
def test_it_looks_as_it_did(browsing: Browsing, bob: Person, samples_of_bob: Samples, path: str) -> None:
    page = console(browsing, bob, path)
    page.locator(".cards, .run-bar").first.wait_for()
    shoot(page, path.replace("/", "-"), varying=[".cards", "#who"])
