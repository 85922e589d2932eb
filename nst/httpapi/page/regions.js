// The painter of regions: a map over the photograph that says, for each place, which
// painting it is styled from. It becomes grey pictures: in the content's mask each painting
// has a level of its own, and a painting's mask is all of its level.
import { $, show, make, say } from "./common.js";
import { chosen, drawShares } from "./pictures.js";

const longest = 512; // of the map, in cells
const colours = [[224, 82, 48], [38, 110, 214], [42, 150, 84], [236, 182, 32], [146, 76, 196], [0, 158, 170],
  [222, 92, 160], [120, 120, 120]];

const canvas = $("canvas"), paper = canvas.getContext("2d");
let map = null;    // an id of a painting in each cell
let width = 0, height = 0;
let of = null;     // the photograph that the map is of
let brushId = 0;   // the painting that is painted with
let cursor = { x: 0, y: 0 };
let before = [];   // maps, to undo to
let paintings = ""; // their ids, of which the maps are
let foreign = null; // masks of a job that this painter cannot show: they are sent as they are

const wanted = () => $("regions").checked && (!!foreign || chosen.styles.length > 1);
const seen = () => chosen.styles.every((s) => s.width) && !!chosen.content?.width && !chosen.content.clip;
const possible = () => chosen.styles.length > 1 && seen();
const colourOf = (id) => colours[Math.max(0, chosen.styles.findIndex((s) => s.id === id)) % colours.length];
const rgb = ([r, g, b]) => `rgb(${r} ${g} ${b})`;
const radius = () => Math.max(width, height) * Number($("brush-size").value) / 200;

// update follows the pictures that are chosen.
export function update() {
  const first = chosen.styles[0]?.id, ids = new Set(chosen.styles.map((s) => s.id));
  if (chosen.content !== of) {
    of = chosen.content;
    map = foreign = null;
    before = [];
  }
  if (possible() && !map) {
    const scale = longest / Math.max(of.width, of.height);
    width = Math.max(1, Math.round(of.width * scale));
    height = Math.max(1, Math.round(of.height * scale));
    map = new Uint8Array(width * height).fill(first);
    brushId = chosen.styles[1].id; // all is the first's
    cursor = { x: width / 2, y: height / 2 };
    Object.assign(canvas, { width, height });
    $("easel-photo").src = of.url;
    $("easel").style.setProperty("--ratio", width / height);
  }
  // What a painting had that is gone is the first's again, and cannot be undone: its id may
  // be another's next.
  if (map && first && map.some((id) => !ids.has(id))) map = map.map((id) => ids.has(id) ? id : first);
  if (paintings !== [...ids].join()) before = [];
  paintings = [...ids].join();
  if (!ids.has(brushId)) brushId = chosen.styles[1]?.id ?? first ?? 0;
  if (foreign && foreign.styles.length !== chosen.styles.length) foreign = null;
  show($("regions-part"), !chosen.content?.clip); // what moves has no place
  $("regions").disabled = !possible() && !foreign;
  if ($("regions").disabled) $("regions").checked = false;
  $("regions-hint").textContent = foreign ?
    "The masks of that picture are used as they were. Untick this to do without." :
    chosen.content && chosen.styles.length > 1 && !seen() ?
      "This browser cannot show one of the pictures, so there is nothing to paint on." :
    possible() ? "Each painting then serves its own part, and weights do nothing." :
    "With a photograph and two paintings or more, each can have its own part.";
  show($("painter"), wanted() && !foreign);
  drawShares(!wanted());
  if (wanted() && map && !foreign) { palette(); draw(); }
}

function palette() {
  $("palette").replaceChildren(...chosen.styles.map((style, i) => {
    const radio = make("input", { type: "radio", name: "palette", value: style.id, checked: style.id === brushId });
    radio.addEventListener("change", () => { brushId = style.id; drawBrush(); });
    const chip = make("span", { className: "chip", textContent: i + 1 });
    chip.style.background = rgb(colourOf(style.id));
    return make("label", {}, radio, chip, make("span", { className: "name", textContent: style.name }),
      make("span", { className: "share" }));
  }));
}

function draw() {
  const image = paper.createImageData(width, height), counts = new Map();
  const table = new Map(chosen.styles.map((s) => [s.id, colourOf(s.id)]));
  for (let i = 0; i < map.length; i++) {
    const [r, g, b] = table.get(map[i]);
    image.data.set([r, g, b, 255], 4 * i);
    counts.set(map[i], (counts.get(map[i]) || 0) + 1);
  }
  paper.putImageData(image, 0, 0);
  chosen.styles.forEach((style, i) => {
    const share = $("palette").children[i]?.querySelector(".share");
    if (share) share.textContent = `${Math.round(100 * (counts.get(style.id) || 0) / map.length)} %`;
  });
  $("undo").disabled = before.length === 0;
}

function remember() {
  $("regions-error").textContent = "";
  before.push(map.slice());
  if (before.length > 20) before.shift();
}

// stamp paints a disc; its edge is hard, since levels between two would be regions of their own.
function stamp(x, y) {
  const r = radius();
  for (let row = Math.max(0, Math.ceil(y - r)); row <= Math.min(height - 1, y + r); row++) {
    const half = Math.sqrt(Math.max(0, r * r - (row - y) ** 2));
    const from = Math.max(0, Math.ceil(x - half)), to = Math.min(width - 1, Math.floor(x + half));
    if (from <= to) map.fill(brushId, row * width + from, row * width + to + 1);
  }
}

function line(from, to) {
  const steps = Math.ceil(Math.hypot(to.x - from.x, to.y - from.y) / Math.max(1, radius() / 3));
  for (let i = 0; i <= steps; i++) {
    const t = steps ? i / steps : 0;
    stamp(from.x + t * (to.x - from.x), from.y + t * (to.y - from.y));
  }
  draw();
}

function drawBrush() {
  const brush = $("brush"), scale = canvas.clientWidth / width;
  brush.style.width = brush.style.height = `${2 * radius() * scale}px`;
  brush.style.left = `${cursor.x * scale}px`;
  brush.style.top = `${cursor.y * scale}px`;
  brush.style.background = rgb(colourOf(brushId));
}

// By pointer: mouse, pen or finger.
const place = (e) => {
  const box = canvas.getBoundingClientRect();
  return { x: (e.clientX - box.left) / box.width * width, y: (e.clientY - box.top) / box.height * height };
};
canvas.addEventListener("pointerdown", (e) => {
  if (e.button) return;
  canvas.setPointerCapture(e.pointerId);
  remember();
  cursor = place(e);
  line(cursor, cursor);
  drawBrush();
});
canvas.addEventListener("pointermove", (e) => {
  const next = place(e);
  if (canvas.hasPointerCapture(e.pointerId)) line(cursor, next);
  cursor = next;
  drawBrush();
});
for (const [name, yes] of [["pointerenter", true], ["focus", true], ["pointerleave", false], ["blur", false]]) {
  canvas.addEventListener(name, () => { show($("brush"), yes); drawBrush(); });
}

// By keyboard.
const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
canvas.addEventListener("keydown", (e) => {
  if (e.ctrlKey || e.metaKey || e.altKey) return;
  const from = { ...cursor }, arrow = arrows[e.key], size = $("brush-size");
  if (arrow) {
    const step = Math.max(2, radius());
    cursor.x = Math.min(width, Math.max(0, cursor.x + step * arrow[0]));
    cursor.y = Math.min(height, Math.max(0, cursor.y + step * arrow[1]));
    if (e.shiftKey) { remember(); line(from, cursor); }
  } else if (e.key === " ") {
    remember();
    line(cursor, cursor);
  } else if (/^[1-9]$/.test(e.key) && chosen.styles[e.key - 1]) {
    brushId = chosen.styles[e.key - 1].id;
    palette();
    draw();
  } else if (e.key === "+" || e.key === "-") {
    size.value = Number(size.value) + (e.key === "+" ? 2 : -2);
  } else {
    return;
  }
  e.preventDefault();
  show($("brush"), true);
  drawBrush();
  const name = chosen.styles.find((s) => s.id === brushId)?.name;
  say(`${e.key === " " || arrow && e.shiftKey ? "Painted, " : ""}${name}, ` +
    `${Math.round(100 * cursor.x / width)} % from the left, ${Math.round(100 * cursor.y / height)} % from the top`);
});

// Assistive programs may send a press by itself: it would scroll the page.
canvas.addEventListener("keypress", (e) => e.preventDefault());

const halves = {
  left: (x) => x < width / 2, right: (x) => x >= width / 2, top: (_, y) => y < height / 2,
  bottom: (_, y) => y >= height / 2, all: () => true,
};
for (const button of document.querySelectorAll("[data-fill]")) {
  button.addEventListener("click", () => {
    const inside = halves[button.dataset.fill];
    remember();
    map = map.map((id, i) => inside(i % width, Math.floor(i / width)) ? brushId : id);
    draw();
    say(`${button.textContent}: ${chosen.styles.find((s) => s.id === brushId).name}`);
  });
}
$("undo").addEventListener("click", () => {
  map = before.pop() ?? map;
  update();
  if ($("undo").disabled) canvas.focus();
});
$("brush-size").addEventListener("input", drawBrush);
$("regions").addEventListener("change", () => {
  if (!$("regions").checked) foreign = null;
  $("regions-error").textContent = "";
  update();
});

// ---- To and from masks

const level = (i, n) => n > 1 ? Math.round(255 * i / (n - 1)) : 0;

function grey(w, h, levelAt) {
  const image = new ImageData(w, h);
  for (let i = 0; i < w * h; i++) {
    const l = levelAt(i);
    image.data.set([l, l, l, 255], 4 * i);
  }
  const sheet = make("canvas", { width: w, height: h });
  sheet.getContext("2d").putImageData(image, 0, 0);
  return new Promise((done) => sheet.toBlob(done, "image/png"));
}

// missing names a painting that has no part, or too little for the network to see it
// (a cell of its deepest layer is 16 pixels wide): nothing if all is well.
export function missing(pixels) {
  if (!wanted() || foreign) return null;
  for (const style of chosen.styles) {
    const cells = map.reduce((n, id) => n + (id === style.id), 0);
    if (!cells) return `nothing is painted with ${style.name}: paint some, or remove it`;
    if (cells / map.length * pixels < 256) return `too little is painted with ${style.name} for this size: paint more`;
  }
  return null;
}

// masks are the parts content_mask and style_mask of a request; null: none are wanted.
export async function masks() {
  if (!wanted()) return null;
  if (foreign) return foreign;
  const { styles } = chosen, n = styles.length, levels = new Map(styles.map((s, i) => [s.id, level(i, n)]));
  return {
    content: await grey(width, height, (i) => levels.get(map[i])),
    styles: await Promise.all(styles.map((s, i) => {
      const scale = 256 / Math.max(s.width, s.height, 1); // a mask has its picture's aspect
      return grey(Math.max(1, Math.round(s.width * scale)), Math.max(1, Math.round(s.height * scale)),
        () => level(i, n));
    })),
  };
}

async function levelsOf(file, w, h) {
  const picture = await createImageBitmap(file);
  const sheet = make("canvas", { width: w || picture.width, height: h || picture.height });
  const context = sheet.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(picture, 0, 0, sheet.width, sheet.height);
  return context.getImageData(0, 0, sheet.width, sheet.height).data.filter((_, i) => i % 4 === 0);
}

// load takes the masks of a job: to paint on, if each painting is of one level, and to be
// sent as they are otherwise.
export async function load(content, styles) {
  $("regions").checked = true;
  update();
  const uniform = await Promise.all(styles.map(async (file) => {
    const levels = new Set(await levelsOf(file));
    return levels.size === 1 ? [...levels][0] : null;
  }));
  if (map && !uniform.includes(null) && new Set(uniform).size === uniform.length) {
    const ids = new Map(uniform.map((l, i) => [l, chosen.styles[i].id]));
    const cells = await levelsOf(content, width, height);
    map = map.map((_, i) => ids.get(cells[i]) ?? chosen.styles[0].id);
  } else {
    foreign = { content, styles };
    $("regions").checked = true;
  }
  update();
}
