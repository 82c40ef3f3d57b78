// A job once more, as it was.

import { get, newId, post } from "./api.js";
import { h } from "./dom.js";
import { toast } from "./parts.js";

/** Submit a job's workflow again, with its labels. Seeds that were drawn are drawn anew. Returns the new job. */
export const again = async (job) => {
  const { workflow } = await get(`jobs/${encodeURIComponent(job.id)}/workflow`);
  const made = await post("jobs", { workflow, metadata: job.metadata ?? {} }, { idempotencyKey: newId() });
  toast(["It runs again: ", h("a", { href: `#/jobs/${encodeURIComponent(made.id)}` }, made.id.slice(0, 13))]);
  return made;
};
