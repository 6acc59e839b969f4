// The kernel owns the state and sends it as `view`; only the reader's actions are sent back.
// Text is inserted as text. The one piece of HTML, the card, has been escaped by the kernel's templates.

const KEYS = {
  ArrowLeft: { do: "step", by: -1 }, k: { do: "step", by: -1 },
  ArrowRight: { do: "step", by: 1 }, j: { do: "step", by: 1 },
  a: { do: "decide", what: "ablate" }, d: { do: "decide", what: "discard" },
};

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function render({ model, el }) {
  const act = (action) => model.send(action);
  const button = (text, title, action) => {
    const node = make("button", { type: "button", title }, text);
    node.onclick = () => act(action);
    return node;
  };

  const ablate = button("✓ ablate", "ablate this one (key a)", KEYS.a);
  const discard = button("✕ discard", "not this one (key d)", KEYS.d);
  const name = make("input", { type: "text", placeholder: "what does it mean?", "aria-label": "name", title: "key n" });
  const progress = make("span", { class: "read-count", "aria-live": "polite" });
  const tiles = make("div", { class: "tiles" });
  const card = make("div", { class: "card" });
  const message = make("div", { class: "message", "aria-live": "polite" });
  const hint = make("div", { class: "hint" });
  hint.append("Keys, once you have clicked in here:");
  for (const [keys, does] of [["← →", "or"], ["k j", "step"], ["a", "ablate"], ["d", "discard"], ["n", "name"]]) {
    hint.append(make("span", {}, make("kbd", {}, keys), " " + does));
  }

  const root = make("div", { class: "caft explorer", tabindex: "0", role: "group", "aria-label": "explorer of directions" },
    make("div", { class: "bar" },
      button("◀ previous", "key k or ←", KEYS.k), button("next ▶", "key j or →", KEYS.j), progress,
      button("export selection", "write the selected directions and their names into a folder", { do: "export" })),
    message, tiles, make("div", { class: "bar" }, ablate, discard, name), card, hint);

  let shown = -1; // the direction whose name is in the input
  const keepName = () => {
    if (name.value !== model.get("view").name) act({ do: "name", at: shown, name: name.value });
  };
  name.onchange = keepName;

  root.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target === name) {
      if (event.key === "Escape") name.value = model.get("view").name;
      if (event.key === "Enter" || event.key === "Escape") { root.focus(); event.preventDefault(); }
      event.stopPropagation();
      return;
    }
    if (event.key === "n") name.focus();
    else if (event.key in KEYS) act(KEYS[event.key]);
    else if (event.key.length > 1) return; // Tab, Escape, Enter on a button ...
    // While the explorer has the focus, a letter must not reach the notebook: in its command mode x would cut
    // the cell and d d would delete it.
    event.stopPropagation();
    if (event.key !== " ") event.preventDefault(); // space presses the focused button
  });

  function draw() {
    const view = model.get("view");
    if (!tiles.firstChild) { // created once, so that a button keeps the focus
      let row = null, layer = null;
      view.tiles.forEach((tile, at) => {
        if (tile.layer !== layer) {
          layer = tile.layer;
          row = make("div");
          tiles.append(make("span", {}, layer), row);
        }
        row.append(button(tile.label, "", { do: "show", at }));
      });
    }
    tiles.querySelectorAll("button").forEach((tile, at) => {
      tile.className = view.tiles[at].state;
      tile.title = view.tiles[at].title;
      tile.setAttribute("aria-current", String(at === view.at));
    });
    ablate.setAttribute("aria-pressed", String(view.state === "ablate"));
    discard.setAttribute("aria-pressed", String(view.state === "discard"));
    if (shown !== view.at || document.activeElement !== name) name.value = view.name;
    shown = view.at;
    progress.textContent = view.progress;
    message.textContent = view.message;
    card.innerHTML = view.card;
  }

  model.on("change:view", draw);
  draw();
  el.append(root);
  return () => model.off("change:view", draw);
}

export default { render };
