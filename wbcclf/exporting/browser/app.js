// The page: pictures in, one after the other through the model, cards and a table out.

const MOST_PIXELS = 89478485; // of a picture: more is taken for a decompression bomb
const PER_PAGE = 24;
const PREVIEW = 480; // pixels of a card's picture on its longer side
const OTHER = ".other"; // a correction, as of `wbcclf serve`; no class may be called so
// As in Python: fewer pictures raise no warning, nor does a mean familiarity above this.
const FEWEST_TESTED = 20;
const LEAST_FAMILIAR = 0.1;

const model = JSON.parse(byId("about").textContent);
const { classes } = model;
const UNCERTAIN = model.uncertain;
const tasks = []; // functions that wait for their turn: pictures are predicted one at a time
let entries = []; // what is known of each picture that was read, or was not
let session = null;
let isBusy = false;
let shownPage = 0;

function byId(id) {
  return document.getElementById(id);
}

/** Return a new element with attributes, listeners and children. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Return the bytes that an element of the page holds as Base64 of gzip. */
async function embedded(id) {
  const text = atob(byId(id).textContent);
  byId(id).remove();
  const packed = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function loadModel() {
  ort.env.wasm.numThreads = 1; // more need headers that neither a file nor a simple server sends
  ort.env.wasm.wasmBinary = await embedded("runtime");
  session = await ort.InferenceSession.create(await embedded("model"));
}

/** Return the pixels of a file as the browser shows it: upright, sRGB. */
async function readPicture(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { premultiplyAlpha: "none" });
  } catch {
    throw new Error("not a picture that this browser can read");
  }
  try {
    const { width, height } = bitmap;
    if (width * height > MOST_PIXELS) {
      throw new Error(`${width} x ${height} pixels are more than ${MOST_PIXELS}`);
    }
    const context = new OffscreenCanvas(width, height).getContext("2d");
    context.drawImage(bitmap, 0, 0);
    return context.getImageData(0, 0, width, height);
  } finally {
    bitmap.close();
  }
}

/** Return what is kept of a picture to be shown: a small JPEG, or the file if it is small. */
async function previewOf(file, picture) {
  const { width, height } = picture;
  const scale = PREVIEW / Math.max(width, height);
  if (scale >= 1) return file;
  const size = [width, height].map((side) => Math.max(1, Math.round(side * scale)));
  const canvas = new OffscreenCanvas(...size);
  const bitmap = await createImageBitmap(picture);
  canvas.getContext("2d").drawImage(bitmap, 0, 0, ...size);
  bitmap.close();
  return canvas.convertToBlob({ type: "image/jpeg", quality: 0.9 });
}

/** Return RGB bytes, height and width: what the model is given of a picture. */
function inputOf(picture, entry) {
  if (model.crop) {
    const light = model.crop.background === "normalise" ? entry.light : null;
    const side = model.image_size[0];
    return [cutSquare(picture, entry.square, side, light), side, side];
  }
  const { data, width, height } = picture;
  const bytes = new Uint8Array(3 * width * height);
  for (let n = 0; n < bytes.length; n += 1) bytes[n] = data[n + Math.floor(n / 3)];
  return [bytes, height, width];
}

async function predict(entry, picture) {
  const [bytes, height, width] = inputOf(picture, entry);
  const images = new ort.Tensor("uint8", bytes, [1, height, width, 3]);
  const found = await session.run({ images });
  entry.shares = [...found.probabilities.data];
  entry.familiarity = found.familiarity?.data[0];
  entry.certainty = found.certainty?.data[0];
}

/** Return what a picture is called: a class, or "uncertain" under the chosen rejection. */
function labelOf({ shares, familiarity, certainty }) {
  const least = model.thresholds[byId("rejection").value];
  const isCalled = least === undefined || (certainty >= least && familiarity >= model.strange);
  return isCalled ? classes[shares.indexOf(Math.max(...shares))] : UNCERTAIN;
}

async function work() {
  if (isBusy || !session) return;
  isBusy = true;
  while (tasks.length) {
    await tasks.shift()();
    report();
    await new Promise((resume) => setTimeout(resume)); // the page answers in between
  }
  isBusy = false;
}

function addFiles(files) {
  const into = entries; // what is removed meanwhile stays removed
  for (const file of files) {
    tasks.push(async () => {
      const entry = { file, correction: "" };
      try {
        const picture = await readPicture(file);
        Object.assign(entry, { width: picture.width, height: picture.height });
        if (model.crop) Object.assign(entry, proposeSquare(picture, model.crop));
        entry.proposed = entry.square;
        entry.preview = await previewOf(file, picture);
        await predict(entry, picture);
      } catch (error) {
        entry.error = error.message;
      }
      into.push(entry);
      if (into !== entries) return;
      if (entry.error) byId("broken").append(make("li", {}, `${file.name}: ${entry.error}`));
      else if (byId("cards").children.length < PER_PAGE) showCards();
    });
  }
  report();
  work();
}

function report() {
  const done = entries.length;
  const left = tasks.length ? `, ${tasks.length} to come` : "";
  byId("progress").value = `${done} ${done === 1 ? "picture" : "pictures"}${left}`;
  if (!tasks.length || done % 10 === 0) {
    showCounts();
    showPager();
  }
  byId("save").disabled = byId("clear").disabled = !done;
}

function readEntries() {
  return entries.filter((entry) => !entry.error);
}

function showCounts() {
  const read = readEntries();
  const counts = new Map([...classes, UNCERTAIN].map((name) => [name, 0]));
  for (const entry of read) {
    const name = entry.correction || labelOf(entry);
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  const rows = [...counts].map(([name, count]) => {
    const share = read.length ? `${((100 * count) / read.length).toFixed(1)}%` : "";
    const cells = [`${count}`, share].map((text) => make("td", {}, text));
    return make("tr", {}, make("th", { scope: "row" }, name), ...cells);
  });
  byId("counts").replaceChildren(...rows);
  byId("warning").textContent = warningOf(read.map((entry) => entry.familiarity));
}

/** Return what is to be said of pictures that are unlike those of the training. */
function warningOf(familiarities) {
  const n = familiarities.length;
  if (n < FEWEST_TESTED || familiarities[0] === undefined) return "";
  const mean = familiarities.reduce((sum, each) => sum + each) / n;
  const nStrange = familiarities.filter((each) => each < model.strange).length;
  if (mean >= LEAST_FAMILIAR && nStrange <= n / 2) return "";
  return (
    "These pictures do not look like those that the model was trained on (stain, scale, focus). " +
    `Their mean familiarity is ${mean.toFixed(2)}; pictures of the same laboratory have 0.50. ` +
    "Expect the model to be wrong. No bound on wrong calls holds for them."
  );
}

/** Return the pictures that are to be shown. */
function matching() {
  const wanted = byId("filter").value;
  return readEntries().filter((entry) => !wanted || labelOf(entry) === wanted);
}

function showCards() {
  const found = showPager();
  const cards = byId("cards");
  const kept = new Map([...cards.children].map((card) => [card.entry, card]));
  found.slice(shownPage * PER_PAGE, (shownPage + 1) * PER_PAGE).forEach((entry, place) => {
    const card = kept.get(entry) ?? makeCard(entry);
    kept.delete(entry);
    if (cards.children[place] !== card) cards.insertBefore(card, cards.children[place] ?? null);
  });
  for (const card of kept.values()) card.remove();
}

/** Say which page is shown, and return the pictures of all pages. */
function showPager() {
  const found = matching();
  const last = Math.max(0, Math.ceil(found.length / PER_PAGE) - 1);
  shownPage = Math.min(shownPage, last);
  byId("where").value = `Page ${shownPage + 1} of ${last + 1}`;
  byId("before").disabled = shownPage === 0;
  byId("after").disabled = shownPage === last;
  return found;
}

function turnPage(by) {
  shownPage += by;
  showCards();
  byId("pictures").scrollIntoView();
}

/** Show what is called now. */
function refresh() {
  for (const card of byId("cards").children) card.say();
  showCards();
  showCounts();
}

/** Return the card of a picture: its square, what it is called and why, and the correction. */
function makeCard(entry) {
  const { name } = entry.file;
  const title = make("h3");
  const bars = make("div", { class: "bars" });
  const facts = make("p", { class: "facts" });
  const options = ["", ...classes, OTHER].map((each) =>
    make("option", { value: each }, { "": "none", [OTHER]: "no cell, or another kind" }[each] ?? each)
  );
  const correct = (event) => {
    entry.correction = event.target.value;
    showCounts();
  };
  const attributes = { "aria-label": `Correction of ${name}`, change: correct };
  const correction = make("select", attributes, ...options);
  correction.value = entry.correction;

  let isWaiting = false;
  function predictAgain() {
    if (isWaiting) return;
    isWaiting = true;
    tasks.unshift(async () => {
      isWaiting = false;
      await predict(entry, await readPicture(entry.file));
      refresh();
    });
    work();
  }

  const picture = makePicture(entry, predictAgain);
  const called = make("p", { class: "name" }, name);
  const label = make("label", {}, "Correction ", correction);
  const card = make("li", { class: "card" }, picture, title, called, bars, facts, label);
  card.entry = entry;
  card.say = () => {
    const call = labelOf(entry);
    title.textContent = call;
    title.classList.toggle("uncertain", call === UNCERTAIN);
    bars.replaceChildren(...barsOf(entry.shares));
    facts.textContent = factsOf(entry);
  };
  card.say();
  return card;
}

/** Return the five largest probabilities as bars. */
function barsOf(shares) {
  const order = shares.map((_, n) => n).sort((a, b) => shares[b] - shares[a]);
  return order.slice(0, 5).map((n) => {
    const bar = make("meter", { "aria-label": `Probability of ${classes[n]}`, value: shares[n] });
    return make("div", {}, make("span", {}, classes[n]), bar, make("span", {}, shares[n].toFixed(3)));
  });
}

function factsOf({ familiarity, found }) {
  const facts = [];
  if (familiarity !== undefined) {
    const strange = familiarity < model.strange ? ": unlike the training pictures" : "";
    facts.push(`Familiarity ${familiarity.toFixed(2)}${strange}.`);
  }
  if (found === false) facts.push("No nucleus was found. Place the square yourself.");
  return facts.join(" ");
}

/** Return all pictures as CSV; a cell with a comma, a quote or a line break is in quotes. */
function toCsv() {
  const head = ["file", "label", "error", "familiarity", ...classes];
  const lines = [[...head, "correction", "rejection", "left", "top", "side"]];
  for (const entry of entries) {
    const { file, error, shares = [], familiarity, found, correction, square = {} } = entry;
    lines.push([
      file.name,
      error ? "" : labelOf(entry),
      error ?? (found === false ? "no nucleus found" : ""),
      familiarity?.toFixed(3),
      ...classes.map((_, n) => shares[n]?.toFixed(6)),
      correction,
      byId("rejection").value,
      ...[square.left, square.top, square.side],
    ]);
  }
  const cell = (value = "") => {
    const text = String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return lines.map((line) => `${line.map((value) => cell(value)).join(",")}\r\n`).join("");
}

/**
 * Return what is to be said of names that a spreadsheet would take for a formula.
 *
 * They are saved as they are, as in Python: a sign before one would be part of it elsewhere.
 */
function warningOfFormulas() {
  const names = [...entries.map(({ file }) => file.name), ...classes];
  const found = names.filter((name) => /^[=+\-@\t\r]/.test(name));
  if (!found.length) return "";
  return (
    `A spreadsheet may take ${found[0]} for a formula (${found.length} such names, which begin ` +
    "with =, +, -, @ or a control code). Import the column as text."
  );
}

function saveCsv() {
  byId("formulas").textContent = warningOfFormulas();
  const address = URL.createObjectURL(new Blob([toCsv()], { type: "text/csv" }));
  make("a", { href: address, download: "predictions.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
}

function clear() {
  entries = [];
  tasks.length = 0;
  byId("broken").replaceChildren();
  byId("formulas").textContent = "";
  shownPage = 0;
  refresh();
  report();
}

/** Let the page be installed, and open without a network, where a server gave it. */
function keepOffline() {
  if (!location.protocol.startsWith("http") || !navigator.serviceWorker) return;
  document.head.append(make("link", { rel: "manifest", href: "manifest.webmanifest" }));
  navigator.serviceWorker.register("sw.js");
}

function listen() {
  for (const id of ["files", "camera"]) {
    byId(id).addEventListener("change", (event) => {
      addFiles(event.target.files);
      event.target.value = ""; // so that the same file can be chosen again
    });
  }
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    addFiles(event.dataTransfer.files);
  });
  byId("rejection").addEventListener("change", refresh);
  byId("filter").addEventListener("change", () => turnPage(-shownPage));
  byId("before").addEventListener("click", () => turnPage(-1));
  byId("after").addEventListener("click", () => turnPage(1));
  byId("save").addEventListener("click", saveCsv);
  byId("clear").addEventListener("click", clear);
}

async function start() {
  listen();
  keepOffline();
  try {
    await loadModel();
  } catch (error) {
    byId("progress").value = `The model cannot run in this browser: ${error.message}`;
    return;
  }
  report();
  work(); // on what was given meanwhile
}

start();
