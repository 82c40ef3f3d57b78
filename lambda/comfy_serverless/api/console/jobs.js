// All jobs of the key's owner: newest first, what runs moves.

import { get } from "./api.js";
import { h, replace } from "./dom.js";
import { every } from "./live.js";
import { bar, duration, empty, labels, shortId, statusChip, thumb, time } from "./parts.js";

const row = (job) =>
  h("li", {}, h("a", { class: "job-row", href: `#/jobs/${encodeURIComponent(job.id)}` },
    thumb(job.outputs?.[0]), shortId(job.id), statusChip(job.status),
    job.progress && !job.completed_at ? bar(job.progress.value) : h("span", {}, job.error?.message ?? ""),
    labels(job.metadata), time(job.created_at), h("span", {}, duration(new Date(job.completed_at) - new Date(job.started_at)))));

const show = async (root) => {
  const list = h("ul", { class: "jobs" });
  const paint = async () => {
    const page = await get("jobs", { limit: 100, expand: "outputs,progress,error" });
    replace(list, page.jobs.length ? page.jobs.map(row) : h("li", {}, empty("No jobs yet")));
  };
  replace(root, h("div", { class: "head" }, h("h1", { tabindex: "-1" }, "Jobs")), h("div", { class: "card" }, list));
  await paint();
  return every(2000, paint);
};

export default { name: "jobs", title: "Jobs", show };
