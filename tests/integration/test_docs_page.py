"""The page at `/docs` in a JavaScript engine, with a small document of our own: what it shows once a key is typed."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

from comfy_serverless.api.documentation import page
from comfy_serverless.api.workflow_openapi import Described, with_workflows
from tests.patience import PATIENCE_S

HOSTILE = "<img src=x onerror=alert(1)> </script>"
#: A document that keeps texts as texts, and fails where the page would have a text read as HTML.
BROWSER = """
class Node {
  constructor(name) { this.name = name; this.children = []; this.text = ""; this.listeners = {}; this.dataset = {}; }
  set textContent(text) { this.text = String(text); this.children = []; }
  get textContent() { return this.text + this.children.map((one) => one.textContent ?? one).join(" "); }
  set innerHTML(text) { throw new Error("a text is read as HTML: " + text); }
  append(...more) { for (const one of more) this.place(one, this.children.length); }
  prepend(...more) { for (const one of more.reverse()) this.place(one, 0); }
  place(one, where) {
    if (one.parent) one.remove();
    if (one instanceof Node) one.parent = this;
    this.children.splice(where, 0, one);
  }
  remove() { this.parent.children = this.parent.children.filter((one) => one !== this); this.parent = null; }
  get childElementCount() { return this.children.filter((one) => one instanceof Node).length; }
  addEventListener(kind, then) { this.listeners[kind] = then; }
}
const known = Object.fromEntries(["about", "key", "note", "routes"].map((name) => [name, new Node(name)]));
globalThis.document = { createElement: (name) => new Node(name), getElementById: (id) => known[id] };
globalThis.fetch = async (url, options) => {
  const key = options?.headers?.Authorization;
  const told = key === undefined ? answers.everybody : key === "Bearer good" ? answers.owner : answers.refusal;
  return { ok: told !== answers.refusal, status: told === answers.refusal ? 401 : 200, json: async () => told };
};
const type = async (text) => {
  known.key.value = text;
  await known.key.listeners.change({ target: known.key });
  return { note: known.note.textContent, routes: known.routes.textContent };
};
"""
SCENE = """
(async () => {
  await new Promise((then) => setTimeout(then, 0));
  const seen = [{ note: "", routes: known.routes.textContent }];
  for (const text of ["good", "good", "bad", ""]) seen.push(await type(text));
  process.stdout.write(JSON.stringify(seen));
})();
"""


def test_a_typed_key_shows_the_workflows_of_its_owner_and_nothing_they_say_is_html() -> None:
    operation = {
        "tags": ["named workflows"],
        "summary": "Run a named workflow",
        "parameters": [],
        "requestBody": {"content": {"application/json": {"schema": {}, "example": {}}}},
        "responses": {"201": {"description": "The job."}},
    }
    everybody: dict[str, Any] = {
        "info": {"description": "The API.", "version": "1"},
        "paths": {"/api/v2/workflows/{name}/runs": {"post": operation}},
    }
    poster = Described(
        name="poster",
        title=HOSTILE,
        description=HOSTILE,
        schema={"type": "object", "properties": {"prompt": {"type": "string", "description": HOSTILE}}},
        example={"prompt": HOSTILE},
    )
    answers = {
        "everybody": everybody,
        "owner": with_workflows(everybody, [poster]),
        "refusal": {"error": {"message": "the API key is unknown"}},
    }
    script = re.search(r"<script>(.*?)</script>", page(), re.DOTALL)
    assert script is not None
    program = f"const answers = {json.dumps(answers)};\n{BROWSER}\n{script[1]}\n{SCENE}"
    ran = subprocess.run(["node", "-"], input=program, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert ran.returncode == 0, ran.stderr
    nobody, typed, again, bad, none = json.loads(ran.stdout)
    assert "/workflows/poster/runs" not in nobody["routes"]
    for shown in (typed, again):
        assert shown["routes"].count("/api/v2/workflows/poster/runs") == 1
        assert HOSTILE in shown["routes"]
        assert "all 1 are shown" in shown["note"]
    assert bad == {"note": "the API key is unknown", "routes": nobody["routes"]}
    assert none == {"note": "", "routes": nobody["routes"]}
