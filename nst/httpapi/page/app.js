// The page: a form, the job that is watched, and a gallery. No dependencies.
"use strict";
const $ = (id) => document.getElementById(id);
const show = (el, yes) => { el.hidden = !yes; };
const files = { content: [], style: [] };
let watched = null, events = null, latest = null, shownPreview = -1, beforeOf = null;

// ---- Calls

async function call(path, options) {
  let answer;
  try {
    answer = await fetch(path, { credentials: "same-origin", ...options });
  } catch {
    throw { detail: "The service does not answer. Is it still running?" };
  }
  if (answer.status === 401) { show($("login"), true); show($("logout"), false); $("token").focus(); }
  if (answer.ok) return answer.status === 204 ? null : answer.json();
  let problem = { detail: `The service answered ${answer.status}.` };
  try { problem = await answer.json(); } catch { /* not ours */ }
  problem.status = answer.status;
  throw problem;
}

const sentence = (text) => text ? text[0].toUpperCase() + text.slice(1) + (/[.?!]$/.test(text) ? "" : ".") : "";

// ---- The form

const kinds = /^image\/(png|jpeg|webp|tiff|gif|bmp|hei[cf]|avif|jxl)$/;

function choose(which, list) {
  const chosen = [...list], error = $(which + "-error");
  error.textContent = "";
  const wrong = chosen.find((f) => f.type && !kinds.test(f.type));
  if (wrong) {
    error.textContent = `${wrong.name} is not a picture of a known kind: PNG, JPEG, WebP, TIFF, GIF, BMP, HEIC, AVIF or JPEG XL.`;
    return;
  }
  files[which] = which === "content" ? chosen.slice(0, 1) : chosen;
  const thumbs = $(which + "-thumbs");
  for (const img of thumbs.querySelectorAll("img")) URL.revokeObjectURL(img.src);
  thumbs.replaceChildren(...files[which].map((f) => {
    const img = new Image();
    img.alt = f.name;
    img.src = URL.createObjectURL(f);
    img.onerror = () => { img.replaceWith(Object.assign(document.createElement("span"), { textContent: f.name })); };
    return img;
  }));
}

for (const which of ["content", "style"]) {
  const drop = $(which + "-drop");
  $(which).addEventListener("change", (e) => choose(which, e.target.files));
  for (const name of ["dragenter", "dragover"]) drop.addEventListener(name, (e) => { e.preventDefault(); drop.classList.add("over"); });
  for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over"));
  drop.addEventListener("drop", (e) => { e.preventDefault(); if (e.dataTransfer.files.length) choose(which, e.dataTransfer.files); });
}

const strength = () => Number($("strength").value);
$("strength").addEventListener("input", () => {
  $("strength-value").textContent = `${Math.round(100 * strength())} %`;
  $("strength").setAttribute("aria-valuetext", $("strength-value").textContent);
});
// Choices of colours that are what is transferred.
const transfers = { luminance: "luminance", only: "color" };

function options() {
  const o = { size: Number($("size").value), preset: $("preset").value, seed: Number($("seed").value) };
  const color = $("color").value;
  if (transfers[color]) o.transfer = transfers[color];
  else o.color = color;
  if (strength() !== 0.5) o.strength = strength();
  if ($("iterations").value !== "") o.iterations = Number($("iterations").value);
  return o;
}

// Where a problem is shown: beside the field or picture that it is about.
function place(problem) {
  const part = (problem.part || "").split(" ")[0];
  const at = $(part + "-error") || (problem.field && $(problem.field + "-error")) || $("form-error");
  at.textContent = sentence(problem.detail);
  const input = $(at.id.replace("-error", ""));
  if (input) { input.setAttribute("aria-invalid", "true"); input.focus(); }
}

$("new").addEventListener("submit", async (e) => {
  e.preventDefault();
  for (const p of $("new").querySelectorAll(".error")) p.textContent = "";
  for (const i of $("new").querySelectorAll("[aria-invalid]")) i.removeAttribute("aria-invalid");
  if (!files.content.length) return place({ part: "content", detail: "choose a photograph" });
  if (!files.style.length) return place({ part: "style", detail: "choose a painting" });
  for (const [id, least] of [["size", 16], ["seed", 0], ["iterations", 1]]) {
    const value = $(id).value;
    if (id === "iterations" && value === "" && $(id).validity.valid) continue;
    if (value === "" || !Number.isInteger(Number(value)) || Number(value) < least) return place({ field: id, detail: `a whole number of ${least} or more is wanted` });
  }
  const form = new FormData();
  form.append("options", JSON.stringify(options()));
  form.append("content", files.content[0]);
  for (const f of files.style) form.append("style", f);
  $("start").disabled = true;
  $("start").textContent = "Sending…";
  try {
    watch((await call("/v1/jobs", { method: "POST", body: form })).id);
    gallery();
  } catch (problem) {
    place(problem);
  } finally {
    $("start").disabled = false;
    $("start").textContent = "Start";
  }
});

// ---- The job that is watched

function watch(id) {
  if (events) events.close();
  watched = id; latest = null; shownPreview = -1; beforeOf = null;
  for (const el of ["after", "before", "handle", "slider-label", "download", "cancel", "forget"]) show($(el), false);
  $("slider").value = 0;
  $("caption").textContent = "The first preview comes soon.";
  $("curve").replaceChildren($("curve-title"));
  $("job-error").textContent = "";
  show($("job"), true);
  $("job-title").focus();
  $("job").scrollIntoView({ block: "start" });
  events = new EventSource(`/v1/jobs/${id}/events`); // it comes back by itself, with Last-Event-ID
  const got = (e) => { if (watched === id) draw(JSON.parse(e.data)); };
  events.addEventListener("state", (e) => { got(e); gallery(); });
  events.addEventListener("progress", got);
  events.addEventListener("deleted", () => { if (watched === id) leave(); });
  events.onerror = () => {
    if (watched === id && events.readyState === EventSource.CONNECTING && latest && !latest.finished) $("job-line").textContent = "The connection was lost; trying again…";
  };
}

function leave() {
  if (events) events.close();
  events = watched = null;
  show($("job"), false);
  gallery();
}

const words = { queued: "Waiting", running: "Running", done: "Done", failed: "Failed", cancelled: "Cancelled" };

function duration(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

function draw(job) {
  latest = job;
  $("job-title").textContent = `${job.width} × ${job.height}, ${job.options.preset || "balanced"}`;
  $("job-state").textContent = words[job.state];
  $("job-state").className = "state " + job.state;
  const p = job.progress;
  let line = { queued: "It waits for its turn.", failed: "", cancelled: "It was cancelled." }[job.state] || "";
  if (job.state === "running") line = p ? `Iteration ${p.iteration} of ${p.iterations}, at ${p.scale} pixels; about ${duration(p.seconds_left)} left.` : "It begins.";
  if (job.state === "done") line = `${job.result.iterations} iterations in ${duration(job.result.seconds)}.`;
  if (job.warnings) line += " " + job.warnings.map(sentence).join(" ");
  if ($("job-line").textContent !== line) $("job-line").textContent = line;
  if (p) $("job-progress").value = p.fraction;
  else $("job-progress").removeAttribute("value");
  if (job.finished && !p) $("job-progress").value = 0;
  $("job-error").textContent = sentence(job.error);
  show($("cancel"), !job.finished);
  show($("forget"), !!job.finished);
  const path = `/v1/jobs/${job.id}`;
  if (job.state === "done") {
    picture(`${path}/result`);
    $("download").href = `${path}/result`;
    $("download").download = `nst-${job.id.slice(0, 8)}.png`;
    show($("download"), true);
    $("caption").textContent = "The result. Slide to compare it with the photograph.";
  } else if (job.preview > shownPreview && job.preview > 0) {
    shownPreview = job.preview;
    picture(`${path}/preview?n=${job.preview}`);
    $("caption").textContent = p ? `As of about iteration ${p.iteration}.` : "";
  } else if (job.finished && !job.preview) {
    $("caption").textContent = "There is no picture of it.";
  }
  curve(job.curve || []);
}

// The picture appears when it is loaded, so that nothing flickers.
function picture(source) {
  const after = $("after"), id = watched;
  if (after.dataset.source === source && !after.hidden) return;
  const next = new Image();
  next.onload = () => {
    if (watched !== id) return;
    after.src = next.src;
    after.dataset.source = source;
    show(after, true);
    if (beforeOf !== id) {
      beforeOf = id;
      $("before").onerror = () => show($("slider-label"), false); // such as a TIFF, which browsers do not show
      $("before").src = `/v1/jobs/${id}/content`;
    }
    for (const el of ["before", "handle", "slider-label"]) show($(el), true);
    slide();
  };
  next.src = source;
}

function slide() {
  const at = Number($("slider").value);
  $("before").style.clipPath = `inset(0 ${100 - at}% 0 0)`;
  $("handle").style.left = `calc(${at}% - 1px)`;
  $("slider").setAttribute("aria-valuetext", `${at} % photograph, ${100 - at} % result`);
}
$("slider").addEventListener("input", slide);

function curve(points) {
  const good = points.filter((p) => p.total > 0);
  if (good.length < 2) return;
  const logs = good.map((p) => Math.log10(p.total));
  const low = Math.min(...logs), high = Math.max(...logs), first = good[0].iteration, last = good[good.length - 1].iteration;
  const x = (i) => 44 + (i - first) / Math.max(1, last - first) * 266;
  const y = (v) => 10 + (high - v) / Math.max(1e-9, high - low) * 160;
  const make = (name, attributes, text) => {
    const el = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [k, v] of Object.entries(attributes)) el.setAttribute(k, v);
    if (text !== undefined) el.textContent = text;
    return el;
  };
  const number = (v) => (10 ** v).toPrecision(3).replace("e+", "e");
  // A new scale is another objective: its curve begins anew.
  const lines = [];
  good.forEach((p, i) => {
    if (i === 0 || p.scale !== good[i - 1].scale) lines.push([]);
    lines[lines.length - 1].push(`${x(p.iteration).toFixed(1)},${y(logs[i]).toFixed(1)}`);
  });
  $("curve-title").textContent = `Cost curve: the total went from ${number(logs[0])} to ${number(logs[logs.length - 1])} in ${last} iterations`;
  $("curve").replaceChildren($("curve-title"),
    ...lines.map((l) => make("polyline", { points: l.length > 1 ? l.join(" ") : `${l[0]} ${l[0]}` })),
    make("text", { x: 4, y: 16 }, number(high)), make("text", { x: 4, y: 174 }, number(low)),
    make("text", { x: 44, y: 192 }, String(first)), make("text", { x: 310, y: 192, "text-anchor": "end" }, String(last)));
}

$("cancel").addEventListener("click", () => remove("cancel"));
$("forget").addEventListener("click", () => remove("forget"));
async function remove(button) {
  $(button).disabled = true;
  try {
    await call(`/v1/jobs/${watched}`, { method: "DELETE" });
    if (button === "forget") leave();
  } catch (problem) {
    $("job-error").textContent = sentence(problem.detail);
  } finally {
    $(button).disabled = false;
  }
}
$("close").addEventListener("click", () => { leave(); $("new").scrollIntoView(); $("content").focus(); });

// ---- The gallery

async function gallery() {
  let list;
  try {
    list = await call("/v1/jobs?limit=60");
  } catch (problem) {
    $("gallery-empty").textContent = problem.status === 401 ? "Sign in to see it." : sentence(problem.detail);
    show($("gallery-empty"), true);
    return;
  }
  show($("login"), false);
  show($("logout"), signedIn());
  $("gallery-empty").textContent = "Nothing yet. What you make is kept here.";
  show($("gallery-empty"), list.jobs.length === 0);
  $("gallery").replaceChildren(...list.jobs.map((job) => {
    const item = document.createElement("li"), button = document.createElement("button"), img = new Image(), text = document.createElement("span");
    img.alt = "";
    img.loading = "lazy";
    if (job.preview) img.src = `/v1/jobs/${job.id}/preview?n=${job.preview}`;
    else if (job.state !== "failed") img.src = `/v1/jobs/${job.id}/content`;
    text.textContent = `${words[job.state]}, ${job.width} × ${job.height}, ${new Date(job.created).toLocaleString()}`;
    button.type = "button";
    button.append(img, text);
    if (job.id === watched) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => watch(job.id));
    item.append(button);
    return item;
  }));
}

$("login").addEventListener("submit", async (e) => {
  e.preventDefault();
  try {
    await call("/v1/session", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ token: $("token").value }) });
    $("token").value = $("login-error").textContent = "";
    signedIn(true);
    gallery();
  } catch (problem) {
    $("login-error").textContent = problem.status === 401 ? "That is not the token." : sentence(problem.detail);
  }
});

// Whether a session was begun here: its cookie is not for scripts.
function signedIn(now) {
  try {
    if (now !== undefined) localStorage.setItem("signed-in", now ? "yes" : "");
    return localStorage.getItem("signed-in") === "yes";
  } catch { // the browser keeps nothing for this site
    return false;
  }
}

$("logout").addEventListener("click", async () => {
  try {
    await call("/v1/session", { method: "DELETE" });
    signedIn(false);
    location.reload();
  } catch (problem) {
    $("gallery-empty").textContent = sentence(problem.detail);
    show($("gallery-empty"), true);
  }
});

gallery();
