// The gallery: the jobs that are kept, the newest first, by what they are searched for.
import { $, show, make, sentence, words, when, call } from "./common.js";
import { watch, watching } from "./job.js";

const page = 60;    // jobs that are asked for at once
const known = new Map(); // every job that was seen, by id: see form.js's estimate
let depth = page; // how many are wanted
let jobs = [], total = 0, next = null, turns = 0, timer = null, me = {};
let told = () => {};

export const seen = () => [...known.values()];
export function start(then) { told = then; }

// owned says who is signed in.
export function owned(session) {
  me = session;
  show($("whose-field"), !!(me.admin && me.name));
}

const terms = () => $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
const mine = () => $("whose").value === "mine";

// matches says whether a job has all of the words: its id by how it begins, the rest by
// any part.
function matches(job) {
  if ($("filter-state").value && job.state !== $("filter-state").value) return false;
  if (mine() && job.owner !== me.name) return false;
  const has = [job.owner, job.clip && "clip", job.options.preset || "balanced", job.state, words[job.state],
    `${job.width}×${job.height}`, `${job.width}x${job.height}`].filter(Boolean).map((s) => s.toLowerCase());
  return terms().every((t) => job.id.toLowerCase().startsWith(t) || has.some((h) => h.includes(t)));
}

async function ask(limit, cursor) {
  const query = new URLSearchParams({ limit });
  if ($("filter-state").value) query.set("state", $("filter-state").value);
  if (mine()) query.set("owner", me.name);
  if (cursor) query.set("cursor", cursor);
  const list = await call(`/v1/jobs?${query}`);
  for (const job of list.jobs) known.set(job.id, job);
  return list;
}

// refresh asks anew for as many as are shown; what is searched for may be further down,
// so then for all.
export async function refresh() {
  const turn = ++turns;
  clearTimeout(timer);
  try {
    const searched = terms().length > 0;
    let list = await ask(searched ? 1000 : Math.min(1000, depth));
    const all = list.jobs;
    while (searched && list.next && turn === turns) all.push(...(list = await ask(1000, list.next)).jobs);
    if (turn !== turns) return;
    [jobs, total, next] = [all, list.total, list.next];
  } catch (problem) {
    if (turn === turns) draw(sentence(problem.detail));
    throw problem;
  }
  draw();
  told();
  const soon = jobs.some((job) => !job.finished) ? 4 : 20;
  timer = setTimeout(() => { if (!document.hidden) again(); }, 1000 * soon);
}

// again refreshes what may have changed elsewhere; errors are shown.
export function again() { return refresh().catch(() => {}); }

$("load-more").addEventListener("click", async () => {
  try {
    const list = await ask(page, next), from = jobs.length;
    jobs.push(...list.jobs.filter((job) => !jobs.some((j) => j.id === job.id)));
    next = list.next;
    depth = jobs.length;
    draw();
    told();
    $("gallery").children[from]?.querySelector("button").focus();
  } catch (problem) {
    draw(sentence(problem.detail));
  }
});

// Cards stay while their jobs do, so that the focus and the pictures do.
const cards = new Map();

function cardOf(job) {
  if (!cards.has(job.id)) {
    const img = make("img", { alt: "", loading: "lazy" }), text = make("span", { className: "text" });
    img.onerror = () => { img.removeAttribute("src"); };
    const button = make("button", { type: "button" }, img, make("span", { className: "state" }), text);
    button.addEventListener("click", () => watch(known.get(job.id)));
    cards.set(job.id, make("li", {}, button));
  }
  const card = cards.get(job.id), [button] = card.children, [img, state, text] = button.children;
  const source = job.preview ? `preview?n=${job.preview}` : job.state === "failed" || job.clip ? "" : "content";
  if (img.dataset.source !== source) {
    img.dataset.source = source;
    if (source) img.src = `/v1/jobs/${job.id}/${source}`;
    else img.removeAttribute("src");
  }
  state.textContent = words[job.state];
  state.className = "state " + job.state;
  const frames = job.clip ? `, ${job.clip.frames} frames` : "";
  const line = `${job.width} × ${job.height}${frames}${job.owner ? `, ${job.owner}` : ""}`;
  text.replaceChildren(make("strong", { textContent: line }), " ", when(job.created));
  if (job.id === watching()) button.ariaCurrent = "true";
  else button.removeAttribute("aria-current");
  return card;
}

function draw(problem = "") {
  const shown = jobs.filter(matches), list = $("gallery");
  const items = shown.map(cardOf), ids = new Set(jobs.map((job) => job.id));
  for (const id of cards.keys()) if (!ids.has(id)) cards.delete(id);
  if (items.length !== list.children.length || items.some((item, i) => item !== list.children[i])) {
    list.replaceChildren(...items);
  }
  const searched = terms().length > 0;
  $("gallery-empty").textContent = problem ||
    (searched || mine() || $("filter-state").value ? "No picture is like that." :
      "Nothing yet. What you make is kept here.");
  show($("gallery-empty"), !!problem || shown.length === 0);
  show($("load-more"), !!next && !searched);
  const count = !total && !shown.length || problem ? "" :
    searched ? `${shown.length} found` : shown.length < total ? `${shown.length} of ${total}` : `${total}`;
  if ($("gallery-count").textContent !== count) $("gallery-count").textContent = count;
}

let pause;
$("search").addEventListener("input", () => {
  draw(); // what is here at once, what is further down soon
  clearTimeout(pause);
  pause = setTimeout(again, 300);
});
for (const id of ["filter-state", "whose"]) $(id).addEventListener("change", () => { depth = page; again(); });
$("filters").addEventListener("submit", (e) => { e.preventDefault(); again(); });
document.addEventListener("visibilitychange", () => { if (!document.hidden) again(); });
