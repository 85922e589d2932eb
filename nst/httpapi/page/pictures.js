// The chosen pictures: one photograph or clip, one painting or more. They come from a file
// dialog, by drag and drop, by a click on a sample, or from a job that is run again.
import { $, show, make, sentence, blob, bytes, say } from "./common.js";

// A picture is {file, name, url, width, height, sample}; of one that this browser cannot
// show, such as a TIFF, width is 0. A painting has a weight, and an id for the painter's map.
// Of a clip, clip is true, url is its first frame, and seconds how long it takes.
export const chosen = { content: null, styles: [] };

const samples = {
  content: [["cat", "A cat"], ["astronaut", "An astronaut"], ["coffee", "A cup of coffee"]],
  style: [["starry-night", "Van Gogh, The Starry Night"], ["shipwreck", "Turner, a shipwreck"],
    ["scream", "Munch, The Scream"]],
};
const endings = ".heic,.heif,.avif,.jxl";
const kinds = /^image\/(png|jpeg|webp|tiff|gif|bmp|hei[cf]|avif|jxl)$/;
const accept = "image/png,image/jpeg,image/webp,image/tiff,image/gif,image/bmp,image/heic,image/heif,image/avif," +
  "image/jxl," + endings;

// The clips that the service takes: of so many bytes; 0: none.
let clipBytes = 0;

export function limit(limits) {
  if (!(clipBytes = limits.max_clip_bytes ?? 0)) return;
  $("content").accept = `${accept},video/*,.mkv`;
  $("content-title").textContent = "Photograph or clip";
  $("content-drop").querySelector("strong").textContent = "Drop a photograph or a clip here";
}

const clipEndings = /\.(mp4|m4v|mov|mkv|webm|avi|mpe?g|ts|ogv|wmv|flv)$/i; // some of which browsers know no type of
const isClip = (file) => file.type.startsWith("video/") || clipEndings.test(file.name);

let changed = () => {};
export function onChange(then) { changed = then; }

// What is being taken in, one after the other; a form that is sent waits for it.
let pending = Promise.resolve();
export const ready = () => pending;
const inTurn = (job) => { pending = pending.then(job); };

async function pictureOf(file, name, sample) {
  const url = URL.createObjectURL(file), img = new Image();
  img.src = url;
  try { await img.decode(); } catch { /* not one that this browser shows */ }
  return { file, name, url, width: img.naturalWidth, height: img.naturalHeight, sample, weight: 50 };
}

// clipOf looks at a clip's first frame, if this browser shows such.
async function clipOf(file, name) {
  const source = URL.createObjectURL(file), video = make("video", { muted: true, preload: "auto", src: source });
  const clip = { file, name, url: "", width: 0, height: 0, clip: true, seconds: 0, weight: 50 };
  await new Promise((done) => {
    video.onloadeddata = video.onerror = done;
    setTimeout(done, 5000);
  });
  if (video.videoWidth && video.readyState > 1) {
    const scale = Math.min(1, 640 / Math.max(video.videoWidth, video.videoHeight));
    const frame = make("canvas", { width: Math.max(1, scale * video.videoWidth),
      height: Math.max(1, scale * video.videoHeight) });
    frame.getContext("2d").drawImage(video, 0, 0, frame.width, frame.height);
    const still = await new Promise((done) => { frame.toBlob(done, "image/jpeg"); });
    Object.assign(clip, { width: video.videoWidth, height: video.videoHeight, url: URL.createObjectURL(still),
      seconds: Number.isFinite(video.duration) ? video.duration : 0 });
  }
  video.removeAttribute("src");
  video.load();
  URL.revokeObjectURL(source);
  return clip;
}

const release = (picture) => { if (picture) URL.revokeObjectURL(picture.url); };

export async function setContent(file, name, sample, clip = false) {
  const picture = await (clip ? clipOf(file, name) : pictureOf(file, name, sample));
  release(chosen.content);
  chosen.content = picture;
  drawContent();
}

// addStyles adds paintings: all of them, in their order, or none.
export async function addStyles(files) {
  for (const style of await Promise.all(files.map(({ file, name, sample }) => pictureOf(file, name, sample)))) {
    style.id = 1;
    while (chosen.styles.some((s) => s.id === style.id)) style.id++;
    chosen.styles.push(style);
  }
  drawStyles();
}

export function clear() {
  release(chosen.content);
  chosen.styles.forEach(release);
  Object.assign(chosen, { content: null, styles: [] });
  drawContent();
  drawStyles();
}

async function take(which, files) {
  const error = $(which + "-error");
  error.textContent = "";
  if (which === "content" && clipBytes && files.length && isClip(files[0])) {
    if (files[0].size <= clipBytes) return setContent(files[0], files[0].name, undefined, true);
    error.textContent = `${files[0].name} has ${bytes(files[0].size)}; clips of ${bytes(clipBytes)} are taken here.`;
    return;
  }
  const wrong = files.find((f) => f.type && !kinds.test(f.type));
  if (wrong) {
    error.textContent = `${wrong.name} is not a picture of a known kind: PNG, JPEG, WebP, TIFF, GIF, BMP, HEIC, AVIF ` +
      "or JPEG XL.";
    return;
  }
  if (which === "content" && files.length) await setContent(files[0], files[0].name);
  if (which === "style") await addStyles(files.map((file) => ({ file, name: file.name })));
}

async function trySample(which, [name, title]) {
  $(which + "-error").textContent = "";
  if (which === "style") {
    const there = chosen.styles.find((s) => s.sample === name);
    if (there) return removeStyle(there);
  }
  try {
    const file = await blob(`/page/sample-${name}.jpg`);
    if (which === "content") await setContent(file, title, name);
    else await addStyles([{ file, name: title, sample: name }]);
    say(`${title} is chosen.`);
  } catch (problem) {
    $(which + "-error").textContent = sentence(problem.detail);
  }
}

export function removeStyle(style) {
  release(style);
  chosen.styles = chosen.styles.filter((s) => s !== style);
  drawStyles();
  say(`${style.name} is removed.`);
}

function thumbnail(picture) {
  if (!picture.width) return make("span", { className: "nothumb", textContent: picture.name });
  return make("img", { src: picture.url, alt: picture.name });
}

function remover(picture, then) {
  const button = make("button", { type: "button", className: "remove", ariaLabel: `Remove ${picture.name}`,
    textContent: "×" });
  button.addEventListener("click", then);
  return button;
}

function drawContent() {
  const picture = chosen.content;
  $("content-drop").classList.toggle("full", !!picture);
  $("content-thumbs").replaceChildren(...picture ? [thumbnail(picture), remover(picture, () => {
    release(picture);
    chosen.content = null;
    drawContent();
    $("content").focus();
  })] : []);
  pressSamples();
  changed();
}

// Cards of paintings that stay are kept, with the focus that may be in one.
const cards = new Map();

function cardOf(style) {
  if (cards.has(style)) return cards.get(style);
  const id = `weight-${style.id}`;
  const weight = make("input", { type: "range", id, min: 0, max: 100, step: 5, value: style.weight });
  weight.addEventListener("input", () => { style.weight = Number(weight.value); drawShares(); changed(); });
  const card = make("li", {}, thumbnail(style),
    make("div", {}, make("span", { className: "name", textContent: style.name, title: style.name }),
      make("span", { className: "weight" }, make("label", { htmlFor: id },
        make("span", { className: "unseen", textContent: `${style.name}: ` }), "Weight ", make("output")), weight)),
    remover(style, () => { removeStyle(style); $("style").focus(); }));
  cards.set(style, card);
  return card;
}

function drawStyles() {
  for (const style of cards.keys()) if (!chosen.styles.includes(style)) cards.delete(style);
  $("style-drop").classList.toggle("full", chosen.styles.length > 0);
  $("style-drop").querySelector("strong").textContent =
    chosen.styles.length ? "Drop more paintings" : "Drop one painting or more";
  $("style-thumbs").replaceChildren(...chosen.styles.map(cardOf));
  drawShares();
  pressSamples();
  changed();
}

// drawShares shows what part of the blend each painting has.
export function drawShares(blended = true) {
  const sum = chosen.styles.reduce((all, s) => all + s.weight, 0);
  for (const style of chosen.styles) {
    const card = cards.get(style), input = card.querySelector("input");
    const share = `${sum ? Math.round(100 * style.weight / sum) : 0} %`;
    card.querySelector("output").textContent = share;
    input.value = style.weight;
    input.ariaValueText = share;
    show(card.querySelector(".weight"), blended && chosen.styles.length > 1);
  }
}

function pressSamples() {
  for (const button of document.querySelectorAll(".samples button")) {
    const { which, sample } = button.dataset;
    const on = which === "content" ? chosen.content?.sample === sample : chosen.styles.some((s) => s.sample === sample);
    button.ariaPressed = String(on);
  }
}

for (const which of ["content", "style"]) {
  const zone = $(which + "-drop"), input = $(which);
  input.accept = accept;
  input.addEventListener("change", () => {
    const files = [...input.files];
    inTurn(() => take(which, files));
    input.value = ""; // so that the same file can be chosen again
  });
  for (const name of ["dragenter", "dragover"]) {
    zone.addEventListener(name, (e) => { e.preventDefault(); zone.classList.add("over"); });
  }
  zone.addEventListener("dragleave", (e) => { if (!zone.contains(e.relatedTarget)) zone.classList.remove("over"); });
  zone.addEventListener("drop", (e) => {
    e.preventDefault();
    zone.classList.remove("over");
    const files = [...e.dataTransfer.files];
    inTurn(() => take(which, files));
  });
  $(which + "-samples").append(...samples[which].map((sample) => {
    const [name, title] = sample;
    const button = make("button", { type: "button", title, ariaPressed: "false" },
      make("img", { src: `/page/sample-${name}.jpg`, alt: title, width: 56, height: 56 }));
    Object.assign(button.dataset, { which, sample: name });
    button.addEventListener("click", () => inTurn(() => trySample(which, sample)));
    return button;
  }));
}

// A picture that is dropped beside a zone would take the page's place.
for (const name of ["dragover", "drop"]) window.addEventListener(name, (e) => e.preventDefault());
