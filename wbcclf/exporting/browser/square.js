// The square on a picture: moved and resized by mouse, touch and keyboard.

const SMALLEST = 8; // pixels of a square's side

/** Return the picture of a card, with its square if the model looks at one. */
function makePicture(entry, predictAgain) {
  const address = URL.createObjectURL(entry.preview);
  const image = make("img", {
    src: address,
    alt: `Picture ${entry.file.name}`,
    draggable: "false",
    load: () => URL.revokeObjectURL(address),
  });
  const frame = make("div", { class: "picture" }, image);
  if (!entry.square) return frame;
  const handle = make("span", { class: "handle" });
  const square = make("div", { class: "square", role: "application", tabindex: 0 }, handle);
  frame.append(square);

  function place() {
    const { left, top, side } = entry.square;
    square.style.left = `${(100 * left) / entry.width}%`;
    square.style.top = `${(100 * top) / entry.height}%`;
    square.style.width = `${(100 * side) / entry.width}%`;
    square.style.height = `${(100 * side) / entry.height}%`;
    // Where the picture cuts the square's corner off, the handle stays inside.
    handle.style.right = `${(100 * Math.max(0, left + side - entry.width)) / side}%`;
    handle.style.bottom = `${(100 * Math.max(0, top + side - entry.height)) / side}%`;
    const where = `left ${left}, top ${top}, side ${side} pixels`;
    const keys = "Arrow keys move it, plus and minus resize it, Escape proposes it again.";
    square.setAttribute("aria-label", `Square of ${entry.file.name}: ${where}. ${keys}`);
  }

  /** Put the square's centre and side; the centre stays inside the picture. */
  function put(x, y, side) {
    const largest = 2 * Math.max(entry.width, entry.height);
    side = Math.round(Math.min(Math.max(side, SMALLEST), largest));
    x = Math.min(Math.max(x, 0), entry.width);
    y = Math.min(Math.max(y, 0), entry.height);
    entry.square = { left: Math.round(x - side / 2), top: Math.round(y - side / 2), side };
    place();
  }

  function change(dx, dy, larger) {
    const { left, top, side } = entry.square;
    put(left + side / 2 + dx, top + side / 2 + dy, side + larger);
    predictAgain();
  }

  square.addEventListener("keydown", (event) => {
    const step = Math.max(1, Math.round(entry.square.side / 50));
    const moves = {
      ArrowLeft: [-step, 0, 0],
      ArrowRight: [step, 0, 0],
      ArrowUp: [0, -step, 0],
      ArrowDown: [0, step, 0],
      "+": [0, 0, 2 * step],
      "=": [0, 0, 2 * step],
      "-": [0, 0, -2 * step],
    };
    if (event.ctrlKey || event.metaKey || event.altKey) return; // the browser's own zoom
    if (event.key in moves) change(...moves[event.key]);
    else if (event.key === "Escape") proposeAgain();
    else return;
    event.preventDefault();
  });

  square.addEventListener("pointerdown", (down) => {
    if (down.button) return;
    const { left, top, side } = entry.square;
    const scale = entry.width / frame.clientWidth;
    square.setPointerCapture(down.pointerId);
    square.onpointermove = (event) => {
      const [dx, dy] = [scale * (event.clientX - down.clientX), scale * (event.clientY - down.clientY)];
      if (down.target === handle) {
        const now = side + Math.max(dx, dy, SMALLEST - side);
        put(left + now / 2, top + now / 2, now);
      } else put(left + side / 2 + dx, top + side / 2 + dy, side);
    };
    square.onlostpointercapture = () => {
      square.onpointermove = square.onlostpointercapture = null;
      predictAgain();
    };
  });

  image.addEventListener("click", (event) => {
    const scale = entry.width / frame.clientWidth;
    put(scale * event.offsetX, scale * event.offsetY, entry.square.side);
    predictAgain();
  });

  function proposeAgain() {
    entry.square = entry.proposed;
    place();
    predictAgain();
  }

  place();
  const resize = (share) => () => change(0, 0, Math.round(share * entry.square.side));
  const button = (text, name, click) =>
    make("button", { type: "button", "aria-label": `${name} of ${entry.file.name}`, click }, text);
  const buttons = make(
    "div",
    { class: "buttons" },
    button("Smaller", "Smaller square", resize(-0.1)),
    button("Larger", "Larger square", resize(0.1)),
    button("Reset", "Reset the square", proposeAgain)
  );
  return make("div", {}, frame, buttons);
}
