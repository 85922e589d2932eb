// The job that is watched: the picture as it forms, its cost curve, and what can be done
// with it.
import { $, show, make, say, sentence, words, when, duration, call } from "./common.js";
import { fill } from "./form.js";

let watched = null, events = null, latest = null, shownPreview = -1, beforeOf = null, told = "";
let changed = () => {}; // is told when a job's state is another

export function start(then) { changed = then; }
export const watching = () => watched;

// watch shows a job as it is, and then as it goes on.
export function watch(job) {
  const { id } = job;
  if (events) events.close();
  watched = id; latest = null; shownPreview = -1; beforeOf = null; told = "";
  for (const el of ["after", "before", "film", "handle", "slider-label", "fullscreen", "downloads", "cancel",
    "forget"]) {
    show($(el), false);
  }
  stop();
  delete $("after").dataset.source;
  $("slider").value = 0;
  $("caption").textContent = "The first preview comes soon.";
  $("curve").replaceChildren($("curve-title"));
  $("curve-title").textContent = "Cost curve: no values yet";
  $("job-error").textContent = "";
  show($("job"), true);
  draw(job);
  $("job-title").focus({ preventScroll: true });
  $("job").scrollIntoView({ block: "start" });
  events = new EventSource(`/v1/jobs/${id}/events`); // it comes back by itself, with Last-Event-ID
  const got = (e) => { if (watched === id) draw(JSON.parse(e.data)); };
  events.addEventListener("state", (e) => { got(e); changed(); });
  events.addEventListener("progress", got);
  events.addEventListener("deleted", () => { if (watched === id) leave(); });
  events.onerror = () => {
    if (watched === id && events.readyState === EventSource.CONNECTING && latest && !latest.finished) {
      $("job-line").textContent = "The connection was lost; trying again…";
    }
  };
  changed();
}

// stop has a clip play no longer.
function stop() {
  $("film").removeAttribute("src");
  $("film").load();
}

function leave() {
  stop();
  if (events) events.close();
  events = watched = null;
  show($("job"), false);
  changed();
}

function draw(job) {
  if (!latest) once(job);
  if (latest?.state !== job.state) settings(job);
  latest = job;
  const p = job.progress;
  const kind = job.clip ? "Clip, " : "";
  $("job-title").textContent = `${kind}${job.width} × ${job.height}, ${job.options.preset || "balanced"}`;
  $("job-state").textContent = words[job.state];
  $("job-state").className = "state " + job.state;
  let line = { queued: "It waits for its turn.", cancelled: "It was cancelled." }[job.state] || "";
  if (job.state === "running") {
    line = !p ? "It begins." : p.frames ?
      `Frame ${Math.min(p.frame + 1, p.frames)} of ${p.frames}, iteration ${p.iteration} of ${p.iterations}; ` +
      `about ${duration(p.seconds_left)} left.` :
      `Iteration ${p.iteration} of ${p.iterations}, at ${p.scale} pixels; about ${duration(p.seconds_left)} left.`;
  }
  if (job.state === "done") line = job.clip ? `${job.result.frames} frames in ${duration(job.result.seconds)}.` :
    `${job.result.iterations} iterations in ${duration(job.result.seconds)}.`;
  if (job.warnings) line += " " + job.warnings.map(sentence).join(" ");
  if ($("job-line").textContent !== line) $("job-line").textContent = line;
  tell(job, line);
  if (p) $("job-progress").value = p.fraction;
  else $("job-progress").removeAttribute("value");
  show($("job-progress"), !job.finished);
  show($("costs"), job.state !== "failed" || job.curve?.length > 1);
  $("job-error").textContent = sentence(job.error);
  show($("cancel"), !job.finished);
  show($("forget"), !!job.finished);
  const path = `/v1/jobs/${job.id}`;
  if (job.state === "done" && job.clip) {
    film(job, path);
  } else if (job.state === "done") {
    picture(`${path}/result`, "The result");
    show($("downloads"), true);
    $("caption").textContent = "The result. Drag over it to compare it with the photograph.";
  } else if (job.preview > shownPreview && job.preview > 0) {
    shownPreview = job.preview;
    picture(`${path}/preview?n=${job.preview}`, "The picture so far");
    $("caption").textContent = !p ? "" :
      p.frames ? `About frame ${Math.max(1, p.frame)}.` : `As of about iteration ${p.iteration}.`;
  } else if (job.finished && !job.preview) {
    $("caption").textContent = "There is no picture of it.";
  }
  curve(job.curve || [], job.clip ? "frame" : "iteration");
}

// film shows a clip that is done.
function film(job, path) {
  show($("downloads"), true);
  if (!$("film").hidden) return;
  show($("after"), false);
  Object.assign($("film"), { poster: job.preview ? `${path}/preview?n=${job.preview}` : "", src: `${path}/result` });
  show($("film"), true);
  show($("fullscreen"), false); // it has its own
  $("caption").textContent = "The result.";
}

// tell has a screen reader say what changes, but not each iteration.
function tell(job, line) {
  const quarter = job.state === "running" && job.progress ? Math.floor(4 * job.progress.fraction) : 0;
  const news = `${words[job.state]} ${quarter}`;
  if (news === told) return;
  told = news;
  say(quarter ? `${25 * quarter} % done.` : `${words[job.state]}. ${job.state === "running" ? "" : line}`);
}

// colours are what the form calls them.
function colours(o) {
  const value = { luminance: "luminance", color: "only" }[o.transfer] ?? o.color;
  return [...$("color").options].find((choice) => choice.value === value)?.textContent;
}

// once draws what stays the same while the job is watched.
function once(job) {
  const { id } = job, path = `/v1/jobs/${id}`;
  // The stage has the picture's shape from the beginning, so that nothing jumps, and
  // shows the photograph until there is a preview.
  $("compare").style.setProperty("--ratio", job.width / job.height);
  $("before").onload = () => { if (watched === id) { beforeOf = id; compare(); } };
  $("before").onerror = () => {}; // such as a TIFF, which browsers do not show
  show($("stage").querySelector(".below"), !job.clip); // nothing is compared
  if (job.clip) $("before").removeAttribute("src");
  else $("before").src = `${path}/content`;
  $("download").textContent = job.clip ? (job.options.container || "mp4").toUpperCase() : "PNG";
  for (const el of ["download-jpeg", "download-webp"]) show($(el), !job.clip);
  $("curve-caption").textContent = `Total cost by ${job.clip ? "frame" : "iteration"}, log scale`;
  $("again").disabled = false;
  for (const [el, query] of [["download", ""], ["download-jpeg", "?format=jpeg"], ["download-webp", "?format=webp"]]) {
    Object.assign($(el), { href: `${path}/result${query}`, download: "" }); // the service names the file
  }
  const names = [job.clip ? ["clip", "The clip"] : ["content", "The photograph"],
    ...Array.from({ length: job.styles }, (_, i) => [`style-${i + 1}`, `Painting ${i + 1}`]),
    ...job.pictures?.includes("content-mask") ? [["content-mask", "The regions, in grey"]] : []];
  $("made-of").replaceChildren(...names.map(([name, alt]) => {
    const img = name === "clip" ?
      make("video", { src: `${path}/${name}`, ariaLabel: alt, title: alt, muted: true, preload: "metadata" }) :
      make("img", { src: `${path}/${name}`, alt, title: alt });
    img.onerror = () => img.replaceWith(alt);
    return make("li", {}, img);
  }));
}

// settings lists what the job was asked for, and by and on what.
function settings(job) {
  const o = job.options;
  const rows = { Strength: o.strength !== undefined && `${Math.round(100 * o.strength)} %`,
    Frames: job.clip?.frames, Colours: colours(o), Weights: o.style_weights?.join(", "), Iterations: o.iterations,
    Seed: o.seed || 0,
    Owner: job.owner, Made: when(job.created), Device: job.device, Id: job.id };
  for (const [name, value] of Object.entries(o)) {
    if (!["size", "preset", "strength", "color", "transfer", "style_weights", "iterations", "seed"].includes(name)) {
      rows[sentence(name.replaceAll("_", " ")).slice(0, -1)] = JSON.stringify(value);
    }
  }
  $("settings").replaceChildren(...Object.entries(rows).filter(([, value]) => value || value === 0)
    .flatMap(([name, value]) => [make("dt", { textContent: name }), make("dd", { textContent: value })]));
}

// The picture appears when it is loaded, so that nothing flickers.
function picture(source, alt) {
  const after = $("after"), id = watched;
  if (after.dataset.source === source && !after.hidden) return;
  const next = new Image();
  next.onload = () => {
    if (watched !== id) return;
    after.src = next.src;
    after.alt = alt;
    after.dataset.source = source;
    show(after, true);
    show($("fullscreen"), document.fullscreenEnabled);
    compare();
  };
  next.src = source;
}

// ---- Before and after

// compare shows what of the two pictures there is.
function compare() {
  const both = !$("after").hidden && beforeOf === watched;
  show($("before"), beforeOf === watched);
  $("before").classList.toggle("waiting", $("after").hidden);
  for (const el of ["handle", "slider-label"]) show($(el), both);
  slide();
}

function slide() {
  const at = $("after").hidden ? 100 : Number($("slider").value);
  $("before").style.clipPath = `inset(0 ${100 - at}% 0 0)`;
  $("handle").style.left = `${at}%`;
  $("slider").ariaValueText = `${at} % photograph, ${100 - at} % result`;
}
$("slider").addEventListener("input", slide);

const stage = $("compare");
const follow = (e) => {
  const box = stage.getBoundingClientRect();
  $("slider").value = 100 * (e.clientX - box.left) / box.width;
  slide();
};
stage.addEventListener("pointerdown", (e) => {
  if (e.button || $("handle").hidden) return;
  e.preventDefault(); // no drag of the image itself
  stage.setPointerCapture(e.pointerId);
  follow(e);
});
stage.addEventListener("pointermove", (e) => { if (stage.hasPointerCapture(e.pointerId)) follow(e); });

$("fullscreen").addEventListener("click", async () => {
  try {
    await (document.fullscreenElement ? document.exitFullscreen() : $("stage").requestFullscreen());
  } catch {
    say("This browser does not allow full screen.");
  }
});
document.addEventListener("fullscreenchange", () => {
  $("fullscreen").textContent = document.fullscreenElement ? "Leave full screen" : "Full screen";
});

// ---- The cost curve

function curve(points, by) {
  const good = points.filter((p) => p.total > 0);
  if (good.length < 2) return;
  const logs = good.map((p) => Math.log10(p.total));
  const low = Math.min(...logs), high = Math.max(...logs);
  const first = good[0].iteration, last = good[good.length - 1].iteration;
  const x = (i) => 44 + (i - first) / Math.max(1, last - first) * 266;
  const y = (v) => 10 + (high - v) / Math.max(1e-9, high - low) * 160;
  const shape = (name, attributes, text = "") => {
    const el = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [k, v] of Object.entries(attributes)) el.setAttribute(k, v);
    el.textContent = text;
    return el;
  };
  const number = (v) => (10 ** v).toPrecision(3).replace("e+", "e");
  // A new scale is another objective: its curve begins anew.
  const lines = [];
  good.forEach((p, i) => {
    if (i === 0 || p.scale !== good[i - 1].scale) lines.push([]);
    lines[lines.length - 1].push(`${x(p.iteration).toFixed(1)},${y(logs[i]).toFixed(1)}`);
  });
  $("curve-title").textContent =
    `Cost curve: the total went from ${number(logs[0])} to ${number(logs[logs.length - 1])} in ${last} ${by}s`;
  $("curve").replaceChildren($("curve-title"),
    shape("path", { d: "M44 10V170H310" }),
    ...lines.map((l) => shape("polyline", { points: l.length > 1 ? l.join(" ") : `${l[0]} ${l[0]}` })),
    shape("text", { x: 4, y: 16 }, number(high)), shape("text", { x: 4, y: 174 }, number(low)),
    shape("text", { x: 44, y: 188 }, String(first)),
    shape("text", { x: 310, y: 188, "text-anchor": "end" }, String(last)));
}

// ---- What can be done with it

for (const name of ["cancel", "forget"]) {
  $(name).addEventListener("click", async () => {
    $(name).disabled = true;
    try {
      await call(`/v1/jobs/${watched}`, { method: "DELETE" });
      if (name === "forget") {
        leave();
        say("It is deleted.");
        $("gallery-title").focus();
      }
    } catch (problem) {
      $("job-error").textContent = sentence(problem.detail);
    } finally {
      $(name).disabled = false;
    }
  });
}

$("again").addEventListener("click", async () => {
  $("again").disabled = true;
  try {
    await fill(latest);
    $("new-title").focus({ preventScroll: true });
    $("new").scrollIntoView({ block: "start" });
  } catch (problem) {
    $("job-error").textContent = sentence(problem.detail ?? String(problem));
  } finally {
    $("again").disabled = false;
  }
});

$("close").addEventListener("click", () => {
  leave();
  $("new").scrollIntoView();
  $("content").focus();
});
