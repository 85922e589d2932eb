// The form: settings, what it will take, and the request that is made of it.
import { $, show, sentence, send, blob, duration, say } from "./common.js";
import { chosen, ready, onChange, setContent, addStyles, clear } from "./pictures.js";
import * as regions from "./regions.js";

// What a preset makes where no number of iterations is given.
const iterationsOf = { balanced: 200, classic: 500, gatys: 500 };
// How many frames there are a second, for all that a browser says of a clip.
const framesASecond = 25;
// Options that pictures do not have.
const ofClips = ["frame_iterations", "long_term", "passes", "container", "temporal_weight"];
// Choices of colours that are what is transferred.
const transfers = { luminance: "luminance", only: "color" };
// The options that the form has fields for.
const own = ["size", "preset", "seed", "color", "transfer", "strength", "iterations", "frame_iterations",
  "passes", "container", "style_weights"];

// What a job that is run again had beyond the form: options, and pictures by their part.
let kept = { options: {}, parts: {} };
let made = () => [];      // the jobs that are known
let submitted = () => {}; // is told of a job

export function start(jobs, then) {
  made = jobs;
  submitted = then;
  onChange(update);
  update();
}

// ---- Fields

const scale = () => $("new").elements.scale.value;
const size = () => Number(scale() === "own" ? $("size").value : scale());
const strength = () => Number($("strength").value);
const isClip = () => !!chosen.content?.clip;

function setSize(pixels) {
  const named = [...$("new").elements.scale].find((r) => r.value === String(pixels));
  $("size").value = named ? "" : pixels;
  (named ?? $("new").elements.scale[4]).checked = true;
}

function options() {
  const o = { ...kept.options, size: size(), preset: $("preset").value, seed: Number($("seed").value) };
  const color = $("color").value, weights = chosen.styles.map((s) => s.weight);
  if (transfers[color]) o.transfer = transfers[color];
  else o.color = color;
  if (strength() !== 0.5) o.strength = strength();
  if ($("iterations").value !== "") o.iterations = Number($("iterations").value);
  if ($("frame_iterations").value !== "") o.frame_iterations = Number($("frame_iterations").value);
  if ($("passes").value !== "") o.passes = Number($("passes").value);
  if ($("container").value !== "mp4") o.container = $("container").value;
  if (!isClip()) for (const name of ofClips) delete o[name];
  if (!$("regions").checked && weights.some((w) => w !== weights[0])) o.style_weights = weights.map((w) => w / 100);
  return o;
}

// A clip is small where nothing else is said: its frames are many.
let wasClip = false;
function follow() {
  if (!chosen.content) return;
  const clip = isClip(), [before, now] = clip ? [512, 256] : [256, 512];
  if (clip !== wasClip && size() === before) setSize(now);
  wasClip = clip;
  for (const field of document.querySelectorAll(".of-clips")) show(field, clip);
  show($("color").querySelector("[value=only]"), !clip);
  if (clip && $("color").value === "only") $("color").value = "style";
}

function update() {
  follow();
  regions.update();
  const preset = $("preset").value;
  $("iterations").placeholder = iterationsOf[preset];
  $("strength-value").textContent = `${Math.round(100 * strength())} %`;
  $("strength").ariaValueText = $("strength-value").textContent;
  const names = [...Object.keys(kept.options), ...Object.keys(kept.parts)];
  show($("kept"), names.length > 0);
  $("kept-text").textContent = `Also as in that picture: ${names.join(", ").replaceAll("_", " ")}.`;
  estimate();
}

for (const name of ["input", "change"]) {
  $("new").addEventListener(name, (e) => {
    if (e.target === $("size")) $("new").elements.scale[4].checked = true;
    if (e.target === $("strength")) delete kept.options.style_weight; // two ways to say the same
    if (!e.target.closest(".zone, .painter")) update();
  });
}
$("drop-kept").addEventListener("click", () => {
  kept = { options: {}, parts: {} };
  update();
  $("start").focus();
});

// ---- The time that it will take

// secondsFor is reckoned from finished jobs of the same preset and optimiser, of clips for a
// clip if there are any: seconds by iteration and pixel, the median of the three whose sizes
// are nearest. null: there is none.
function secondsFor(longest) {
  const preset = $("preset").value, { width, height } = chosen.content;
  const pixels = longest * longest * Math.min(width, height) / Math.max(width, height);
  let iterations = Number($("iterations").value) || iterationsOf[preset];
  if (isClip()) {
    const each = $("frame_iterations"), passes = Number($("passes").value) || 1;
    iterations += (passes * frames() - 1) * Number(each.value || each.placeholder);
  }
  const far = (job) => Math.abs(Math.log(job.width * job.height / pixels));
  const like = made().filter((job) => job.state === "done" && job.result?.iterations > 0 &&
    (job.options.preset || "balanced") === preset && job.options.optimizer === kept.options.optimizer);
  const same = like.filter((job) => !!job.clip === isClip());
  const rates = (same.length ? same : like).sort((a, b) => far(a) - far(b)).slice(0, 3)
    .map((job) => job.result.seconds / (job.result.iterations * job.width * job.height)).sort((a, b) => a - b);
  return rates.length ? rates[rates.length >> 1] * iterations * pixels : null;
}

const frames = () => Math.max(1, Math.round(chosen.content.seconds * framesASecond));

export function estimate() {
  const known = !!chosen.content?.width && $("color").value !== "only" && (!isClip() || chosen.content.seconds > 0);
  const clip = known && isClip() ? `The clip has about ${frames()} frames. ` : "";
  for (const choice of document.querySelectorAll(".choice")) {
    const value = choice.querySelector("[name=scale]").value;
    const seconds = known ? secondsFor(value === "own" ? Number($("size").value) : Number(value)) : null;
    choice.querySelector(".time").textContent = seconds ? `about ${duration(seconds)}` : "";
  }
  const seconds = known && size() ? secondsFor(size()) : null;
  $("estimate").textContent = !known || !size() ? "" :
    clip + (seconds ? `About ${duration(seconds)} once it runs, by the last pictures here.` :
    "How long it takes is not known yet: no picture of this preset was made here.");
}

// ---- Problems

// place shows a problem beside the field or the picture that it is about.
function place(problem) {
  const part = problem.part || "";
  const name = part.includes("mask") || problem.field?.endsWith("_mask") ? "regions" :
    problem.field === "style_weights" ? "style" : part === "clip" ? "content" : part.split(" ")[0] || problem.field;
  const at = name && $(name + "-error") || $("form-error");
  if ($("more").contains(at)) $("more").open = true;
  at.textContent = sentence(problem.detail ?? String(problem));
  const input = $(at.id.replace("-error", ""));
  if (input) { input.ariaInvalid = "true"; input.focus(); }
  at.scrollIntoView({ block: "nearest" });
}

// wrong is what can be said without asking the service.
function wrong() {
  if (!chosen.content) return { part: "content", detail: "choose a photograph" };
  if (!chosen.styles.length) return { part: "style", detail: "choose a painting" };
  if (!chosen.styles.some((s) => s.weight)) return { part: "style", detail: "give one painting a weight" };
  for (const [id, least, needed] of [["size", 16, scale() === "own"], ["seed", 0, true], ["iterations", 1, false],
    ["frame_iterations", 0, false], ["passes", 1, false]]) {
    const { value, validity } = $(id);
    if (!needed && value === "" && validity.valid) continue;
    if (value === "" || !Number.isInteger(Number(value)) || Number(value) < least) {
      return { field: id, detail: `a whole number of ${least} or more is wanted` };
    }
  }
  const { width, height } = chosen.content;
  const missing = regions.missing(size() * size() * Math.min(width, height) / Math.max(width, height, 1));
  return missing && { field: "content_mask", detail: missing };
}

$("new").addEventListener("submit", async (e) => {
  e.preventDefault();
  for (const p of $("new").querySelectorAll(".error")) p.textContent = "";
  for (const i of $("new").querySelectorAll("[aria-invalid]")) i.removeAttribute("aria-invalid");
  $("start").disabled = true;
  const sending = (part) => {
    $("start").textContent = part < 1 ? `Sending… ${Math.floor(100 * part)} %` : "Sent; it is looked at…";
  };
  $("start").textContent = "Sending…";
  try {
    await ready();
    const problem = wrong();
    if (problem) throw problem;
    const form = new FormData(), masks = await regions.masks();
    form.append("options", JSON.stringify(options()));
    form.append(isClip() ? "clip" : "content", chosen.content.file);
    for (const s of chosen.styles) form.append("style", s.file);
    if (masks) {
      form.append("content_mask", masks.content);
      for (const m of masks.styles) form.append("style_mask", m);
    }
    for (const [part, file] of Object.entries(kept.parts)) form.append(part, file);
    submitted(await send("/v1/jobs", form, sending));
  } catch (problem) {
    place(problem);
  } finally {
    $("start").disabled = false;
    $("start").textContent = "Start";
  }
});

// ---- Again

// fill makes the form that of a job: its settings, and its pictures as they were sent.
export async function fill(job) {
  const o = job.options, names = job.pictures ?? ["content"], at = (name) => blob(`/v1/jobs/${job.id}/${name}`);
  const all = (kind) => Promise.all(names.filter((n) => kind.test(n)).map(at));
  const clip = names.includes("clip");
  const [content, paintings, styleMasks] =
    await Promise.all([at(clip ? "clip" : "content"), all(/^style-\d+$/), all(/^style-mask-\d+$/)]);
  const contentMask = names.includes("content-mask") ? await at("content-mask") : null;
  const parts = {};
  for (const [name, part] of [["strength-mask", "strength_mask"], ["init", "init"]]) {
    if (names.includes(name)) parts[part] = await at(name);
  }

  clear();
  kept = { options: Object.fromEntries(Object.entries(o).filter(([name]) => !own.includes(name))), parts };
  setSize(o.size ?? 512);
  $("preset").value = o.preset || "balanced";
  $("color").value = Object.keys(transfers).find((c) => transfers[c] === o.transfer) ?? o.color ?? "style";
  $("strength").value = o.strength ?? 0.5;
  $("iterations").value = o.iterations ?? "";
  $("frame_iterations").value = o.frame_iterations ?? "";
  $("passes").value = o.passes ?? "";
  $("container").value = o.container ?? "mp4";
  $("seed").value = o.seed ?? 0;
  $("more").open = ["iterations", "frame_iterations", "passes", "container"].some((name) => o[name] !== undefined) ||
    !!o.seed || $("color").value !== "style" || $("preset").value !== "balanced";
  wasClip = clip; // the size is the job's
  await setContent(content, clip ? "The clip" : "The photograph", undefined, clip);
  await addStyles(paintings.map((file, i) => ({ file, name: `Painting ${i + 1}` })));
  const most = Math.max(...o.style_weights ?? [0]);
  if (most) chosen.styles.forEach((s, i) => { s.weight = Math.round(100 * o.style_weights[i] / most); });
  $("regions").checked = false;
  if (contentMask) await regions.load(contentMask, styleMasks);
  update();
  say("The form has that picture’s settings.");
}
