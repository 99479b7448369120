"use strict";
// Sends pictures to the server's own API and shows what it answers. All text goes in as text.
(() => {
  const form = document.querySelector("form");
  const status = document.getElementById("status");
  const answers = document.getElementById("answers");
  const drop = document.querySelector(".drop");
  let model;

  const make = (tag, text, options = {}) => {
    const made = Object.assign(document.createElement(tag), options);
    if (text !== null) made.textContent = text;
    return made;
  };
  const perCent = (share) => `${(100 * share).toFixed(0)}%`;
  const say = (text) => { status.textContent = text; };

  // Ask the API; an error has the text that is for people.
  const ask = async (path, files, values = {}) => {
    const body = new FormData();
    for (const [name, value] of Object.entries(values)) body.append(name, value);
    for (const file of files) body.append("picture", file);
    let response;
    try {
      response = await fetch(`api/${path}`, { method: "POST", body });
    } catch {
      throw new Error("The server cannot be reached. Is it still running?");
    }
    const found = await response.json();
    if (!response.ok && !found.pictures) throw new Error(found.error);
    return found;
  };

  const card = (file) => {
    const made = make("article", null, { className: "card" });
    const url = URL.createObjectURL(file);
    const picture = make("img", null, { className: "own", alt: "", src: url });
    picture.onload = () => URL.revokeObjectURL(url);
    picture.onerror = () => { URL.revokeObjectURL(url); picture.remove(); }; // TIFF
    made.append(make("h3", file.name), picture);
    return made;
  };
  const fault = (where, text) =>
    where.append(make("p", text, { className: "fault", role: "alert" }));

  const shares = (probabilities) => {
    const table = make("table", null, { className: "shares small" });
    table.append(make("caption", "Probabilities"));
    const rows = Object.entries(probabilities).sort((a, b) => b[1] - a[1]).slice(0, 4);
    for (const [name, share] of rows) {
      const row = table.insertRow();
      row.append(make("th", name, { scope: "row" }));
      const meter = make("meter", null, { value: share });
      meter.setAttribute("aria-label", name);
      row.insertCell().append(meter);
      row.append(make("td", share.toFixed(3), { className: "number" }));
    }
    return table;
  };

  // `box` says which cell of a field is meant.
  const call = (where, file, found, box = {}) => {
    if (found.error) return fault(where, found.error);
    where.append(make("p", found.label, { className: "called" }), shares(found.probabilities));
    const doubt = (text) => where.append(make("p", text, { className: "doubt small" }));
    if (found.familiarity !== null) {
      where.append(make("p", `Familiarity ${found.familiarity.toFixed(3)}`, { className: "small" }));
      if (found.familiarity < model.strange) {
        doubt("It looks like no picture that the model was trained on. Expect a wrong label.");
      }
    }
    if (found.set) {
      const names = found.set.length ? found.set.join(", ") : "none: no class is likely enough";
      where.append(make("p", `Set (${perCent(model.sets.confidence_level)}): ${names}`));
    }
    if (found.cell_found === false) doubt("No white cell was found. The central square was used.");
    if (found.trained_on) doubt("The model was trained on this picture.");
    if (model.explains) where.append(explain(where, file, box));
    if (model.corrections) where.append(correct(file, box));
  };

  const explain = (where, file, box) => {
    const button = make("button", "What does the model go by?", { type: "button" });
    button.onclick = async () => {
      button.disabled = true;
      say("Covering the picture patch by patch…");
      try {
        const found = await ask("explain", [file], box);
        const row = make("div", null, { className: "row" });
        const figure = (source, text) => {
          const made = make("figure", null);
          made.append(make("img", null, { src: source, alt: "" }), make("figcaption", text));
          row.append(made);
        };
        figure(found.picture, "What the network sees");
        const inside = found.inside === null ? "" : `, ${perCent(found.inside)} of it on the cell`;
        figure(found.map, `Bright: what speaks for ${found.label}${inside}`);
        button.replaceWith(row);
        for (const text of found.warnings) fault(where, text);
        say("The map is there.");
      } catch (error) {
        button.disabled = false;
        fault(where, error.message);
      }
    };
    return button;
  };

  const correct = (file, box) => {
    const made = make("p", null, { className: "small" });
    const label = make("label", "True class: ");
    const select = make("select", null);
    select.append(make("option", "not corrected", { value: "" }));
    for (const name of model.corrections) {
      const text = name === ".other" ? "no cell, or another kind" : name;
      select.append(make("option", text, { value: name }));
    }
    const answer = make("span", "", { role: "status" });
    label.append(select);
    made.append(label, " ", answer);
    const save = async (name) => {
      answer.textContent = "saving…";
      try {
        await ask("corrections", [file], { class: name, ...box });
        answer.textContent = "saved";
        select.options[0].disabled = true;
      } catch (error) {
        answer.textContent = error.message;
      }
    };
    let saving = Promise.resolve(); // one after the other, for the last word to count
    select.onchange = () => {
      const name = select.value;
      if (name) saving = saving.then(() => save(name));
    };
    return made;
  };

  const field = (where, file, found) => {
    where.classList.add("field");
    where.querySelector("img.own")?.remove();
    for (const text of found.warnings) where.append(make("p", text, { className: "doubt small" }));
    where.append(make("img", null, {
      className: "overlay", src: found.overlay, alt: `The field with ${found.cells.length} cells in numbered boxes`,
    }));
    const wide = make("div", null, { className: "wide", tabIndex: 0 });
    wide.setAttribute("role", "region");
    wide.setAttribute("aria-label", "Count");
    const table = make("table", null);
    table.append(make("caption", "Count"));
    const head = table.createTHead().insertRow();
    for (const name of ["Class", "Cells", "Per cent", "95% interval"]) {
      head.append(make("th", name, { scope: "col" }));
    }
    const body = table.createTBody();
    const figure = (value) => (value === null ? "" : value.toFixed(1));
    for (const row of found.table) {
      const interval = row.low === null ? "" : `${figure(row.low)} to ${figure(row.high)}`;
      const line = body.insertRow();
      for (const text of [row.class, String(row.cells), figure(row.percent), interval]) {
        line.append(make("td", text));
      }
    }
    wide.append(table);
    where.append(wide);
    const cells = make("div", null, { className: "cards" });
    for (const cell of found.cells) {
      const one = make("article", null, { className: "card" });
      one.append(
        make("h4", `Cell ${cell.number}`),
        make("img", null, { className: "own", alt: "", src: cell.picture }),
      );
      if (cell.status === "border") {
        one.append(make("p", "Not counted: cut by the lower or right border.", { className: "doubt small" }));
      }
      const label = cell.status === "uncertain" ? "uncertain" : cell.label;
      const box = [cell.min_row, cell.min_col, cell.max_row, cell.max_col].join(",");
      call(one, file, { ...cell, label }, { box });
      cells.append(one);
    }
    where.append(cells);
  };

  // Requests of as many pictures as fit; what is too large alone is sent alone, and refused.
  const batches = (files) => {
    const made = [];
    let room = 0;
    for (const file of files) {
      const last = made.at(-1);
      room -= file.size + 1000;
      if (last && room >= 0 && last.length < Math.min(16, model.limits.pictures)) last.push(file);
      else {
        made.push([file]);
        room = model.limits.request_bytes - file.size - 2000;
      }
    }
    return made;
  };

  const send = async (files) => {
    const kind = form.elements.kind.value;
    let done = 0;
    for (const batch of kind === "count" ? files.map((file) => [file]) : batches(files)) {
      say(`Pictures: ${done} of ${files.length} answered…`);
      const cards = batch.map(card);
      answers.prepend(...cards);
      try {
        const found = await ask(kind, batch);
        if (kind === "count") field(cards[0], batch[0], found);
        else found.pictures.forEach((each, row) => call(cards[row], batch[row], each));
      } catch (error) {
        cards.forEach((each) => fault(each, error.message));
      }
      done += batch.length;
    }
    say(`Pictures: ${done} of ${files.length} answered.`);
  };

  const about = () => {
    const list = document.getElementById("about");
    const tell = (name, text) => list.append(make("dt", name), make("dd", text));
    document.getElementById("worth").textContent = model.worth;
    tell("Model", `${model.model} (SHA-256 ${model.model_sha256})`);
    tell("Classes", model.classes.join(", "));
    tell("Uncertain", model.rejection === null
      ? "The model always gives a label. Start the server with --reject 0.05 to leave pictures uncertain."
      : `Pictures are left uncertain so that at most ${perCent(model.rejection)} of the other calls are wrong, with 95% confidence, on pictures like those of the training. Elsewhere more may be.`);
    tell("Sets", model.sets === null
      ? "There are none. Start the server with --sets IMAGES, labelled pictures of your laboratory, to get sets of classes that hold the true one as often as they promise."
      : `Learnt from your cells: ${Object.entries(model.sets.cells).map(([name, n]) => `${n} of ${name}`).join(", ")}.`);
    tell("Corrections", model.corrections === null
      ? "They are not saved. Start the server with --corrections DIR."
      : "Choose the true class below an answer. The picture is saved on the server's machine; of a field, the picture of that cell.");
  };

  const start = async () => {
    try {
      model = await (await fetch("api/model")).json();
    } catch {
      return say("The server cannot be reached. Is it still running?");
    }
    about();
    form.elements.files.onchange = async (event) => {
      const files = [...event.target.files];
      event.target.value = "";
      await send(files);
    };
    drop.ondragover = (event) => { event.preventDefault(); drop.classList.add("over"); };
    drop.ondragleave = () => drop.classList.remove("over");
    drop.ondrop = async (event) => {
      event.preventDefault();
      drop.classList.remove("over");
      await send([...event.dataTransfer.files]);
    };
    form.onsubmit = (event) => event.preventDefault();
    // A picture that is dropped beside the place would be opened instead of this page.
    window.ondragover = window.ondrop = (event) => event.preventDefault();
    say("Ready.");
  };
  start();
})();
