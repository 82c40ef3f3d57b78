/** Comfy's own SDK for TypeScript on your own AWS account: set COMFY_BASE_URL and COMFY_API_KEY, and run it. */

import { mkdir } from "node:fs/promises";
import { basename } from "node:path";
import { Comfy } from "@comfyorg/sdk";

const client = new Comfy({ apiKey: process.env.COMFY_API_KEY }); // this SDK reads COMFY_BASE_URL, and not the key
const workflow = await client.workflows.fromFile("workflows/thumbnail.json");
workflow.setInput("1", "image", client.assets.fromFile("events/photo.jpg")); // the same bytes are never sent again
const job = await client.submit(workflow);
for await (const event of job.events()) { // live with `make dev` and `LiveEvents`, else snapshots
  if (event.kind === "progress") console.log(`${Math.round(event.value * 100)}% ${event.message ?? ""}`);
  if (event.kind === "outputReady") console.log("made", event.output.name);
}
await job.result(); // throws JobFailed
await mkdir("out", { recursive: true });
for (const output of job.outputs) {
  console.log(await output.toFile(`out/${basename(output.name)}`), (await output.getDownloadUrl()).url.slice(0, 60));
}
