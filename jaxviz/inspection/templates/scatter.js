"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const element = id => document.getElementById(id);
  const [map, card, said] = ["map", "card", "said"].map(element);
  const draw2d = map.getContext("2d");
  const N = data.names.length;
  const NONE = -1;

  // A fixed order in no order: of the pictures that share a place the first is shown, so that no class comes first.
  const order = Array.from({ length: N }, (_, i) => i);
  for (let i = N - 1, seed = 1; i > 0; i--) {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    const j = seed % (i + 1);
    [order[i], order[j]] = [order[j], order[i]];
  }

  const shown = data.classes.map(() => true);
  let matches = null;             // of the search: which points, or null
  let view = { scale: 1, x: 0, y: 0 };
  let fitted = 1;                 // the scale at which all is seen
  let width = 0, height = 0, ratio = 1;
  let kept = NONE, over = NONE;
  let tiles = [];                 // what was drawn as pictures: [point, left, top, side], in order
  let moved = new Map();          // where those are that stand on a place of the grid
  let colors = {};
  let waiting = 0;

  // Pictures ----------------------------------------------------------------------------------------------------------
  let missing = data.sheets.length;
  const sheets = data.sheets.map(source => {
    const image = new Image();
    image.onload = image.onerror = () => { missing--; redraw(); };
    image.src = source;
    return image;
  });
  const perSheet = data.across * data.across;
  const photos = new Map();       // the last ones that were drawn large
  const photoName = i => `photos/${String(i).padStart(5, "0")}.jpg`;
  function photo(i) {
    let image = photos.get(i);
    if (image) {
      photos.delete(i);           // to the end of the queue
    } else {
      image = new Image();
      image.onload = redraw;
      image.src = photoName(i);
      if (photos.size > 400) photos.delete(photos.keys().next().value);
    }
    photos.set(i, image);
    return image.complete && image.naturalWidth ? image : null;
  }
  function drawPicture(i, left, top, side, large) {
    const image = large && photo(i);
    if (image) {
      draw2d.drawImage(image, left, top, side, side);
      return;
    }
    const sheet = sheets[Math.floor(i / perSheet)], at = i % perSheet, t = data.tile;
    if (sheet.complete && sheet.naturalWidth) {
      draw2d.drawImage(sheet, (at % data.across) * t, Math.floor(at / data.across) * t, t, t, left, top, side, side);
    }
  }

  // Drawing -----------------------------------------------------------------------------------------------------------
  const across = i => data.x[i] * view.scale + view.x;
  const down = i => data.y[i] * view.scale + view.y;
  const spot = i => moved.get(i) ?? [across(i), down(i)];
  const color = i => (data.class[i] < 0 ? colors.faint : data.classes[data.class[i]].color);
  const visible = i => data.class[i] < 0 || shown[data.class[i]];
  const active = i => visible(i) && (!matches || matches.has(i));
  function side() {
    const zoom = view.scale / fitted;
    return Math.round(Math.min(160, Number(element("size").value) * Math.pow(Math.max(1, zoom), 0.4)));
  }

  function redraw() {
    waiting ||= requestAnimationFrame(() => { waiting = 0; draw(); });
  }

  function draw() {
    const begun = performance.now();
    const mode = element("mode").value, tile = side(), near = kept >= 0 ? data.near[kept] : [];
    draw2d.setTransform(ratio, 0, 0, ratio, 0, 0);
    draw2d.fillStyle = colors.paper;
    draw2d.fillRect(0, 0, width, height);
    draw2d.imageSmoothingQuality = "medium";

    // Places belong to the plane, not to the window, and change at steps of the zoom: moving does not make pictures jump.
    const step = Math.pow(2, Math.round(4 * Math.log2(view.scale / fitted)) / 4) * fitted / view.scale;
    const cell = (tile + 2) / step;
    const taken = new Set();
    const dots = new Map();
    const faded = [];
    let counted = 0;
    tiles = [];
    moved = new Map();
    for (const i of order) {
      if (!visible(i)) continue;
      const x = across(i), y = down(i);
      if (x < -tile || y < -tile || x > width + tile || y > height + tile) continue;
      if (matches && !matches.has(i)) { faded.push(x, y); continue; }
      if (mode !== "dots") {
        const column = Math.floor((x - view.x) / cell), row = Math.floor((y - view.y) / cell), key = column * 1e6 + row;
        if (!taken.has(key)) {
          taken.add(key);
          const cx = mode === "grid" ? (column + 0.5) * cell + view.x : x;
          const cy = mode === "grid" ? (row + 0.5) * cell + view.y : y;
          tiles.push([i, cx - tile / 2, cy - tile / 2, tile]);
          moved.set(i, [cx, cy]);
          continue;
        }
      }
      counted++;
      if (mode === "grid") continue;  // behind the picture that has the place
      const kind = data.class[i];
      if (!dots.has(kind)) dots.set(kind, []);
      dots.get(kind).push(x, y);
    }
    const radius = Math.min(6, (mode === "dots" ? 2.5 : 2) * Math.pow(view.scale / fitted, 0.25));
    drawDots(faded, colors.line, radius);
    for (const [kind, places] of dots) drawDots(places, kind < 0 ? colors.faint : data.classes[kind].color, radius);
    const large = tile * ratio > data.tile * 1.25 && tiles.length <= 250;
    const border = Math.max(1, Math.round(tile / 16));
    for (const [i, left, top] of tiles) {
      draw2d.fillStyle = color(i);
      draw2d.fillRect(left, top, tile, tile);
      drawPicture(i, left + border, top + border, tile - 2 * border, large);
    }

    if (kept >= 0 && visible(kept)) {
      draw2d.strokeStyle = colors.mark;
      draw2d.lineWidth = 1.5;
      draw2d.beginPath();
      for (const j of near) {
        if (!visible(j)) continue;
        draw2d.moveTo(...spot(kept));
        draw2d.lineTo(...spot(j));
      }
      draw2d.stroke();
      for (const j of near) if (visible(j)) drawMarked(j, Math.max(22, tile * 0.7), false);
      drawMarked(kept, Math.max(48, tile * 1.4), true);
    }
    if (over >= 0 && over !== kept) drawMarked(over, Math.max(48, tile * 1.4), true);
    Object.assign(document.body.dataset, {
      ready: String(missing === 0), pictures: tiles.length, dots: counted, kept, over,
      milliseconds: (performance.now() - begun).toFixed(1),
    });
  }

  function drawDots(places, fill, radius) {
    draw2d.fillStyle = fill;
    draw2d.beginPath();
    for (let n = 0; n < places.length; n += 2) {
      draw2d.moveTo(places[n] + radius, places[n + 1]);
      draw2d.arc(places[n], places[n + 1], radius, 0, 7);
    }
    draw2d.fill();
  }

  function drawMarked(i, size, strong) {
    const [x, y] = spot(i), left = x - size / 2, top = y - size / 2, border = strong ? 3 : 2;
    draw2d.fillStyle = strong ? colors.ink : colors.mark;
    draw2d.fillRect(left - 1, top - 1, size + 2, size + 2);
    draw2d.fillStyle = color(i);
    draw2d.fillRect(left, top, size, size);
    drawPicture(i, left + border, top + border, size - 2 * border, strong);
  }

  // Moving ------------------------------------------------------------------------------------------------------------
  function showAll() {
    const margin = 40;
    fitted = Math.max(1e-6, Math.min((width - 2 * margin) / data.width, (height - 2 * margin) / data.height));
    view = { scale: fitted, x: (width - data.width * fitted) / 2, y: (height - data.height * fitted) / 2 };
    redraw();
  }
  function zoom(factor, x = width / 2, y = height / 2) {
    const scale = Math.min(fitted * 200, Math.max(fitted / 2, view.scale * factor));
    view = { scale, x: x - (x - view.x) * scale / view.scale, y: y - (y - view.y) * scale / view.scale };
    hold();
    redraw();
  }
  function move(x, y) {
    view.x += x;
    view.y += y;
    hold();
    redraw();
  }
  function hold() {               // a corner of the map in sight
    const inside = Math.min(80, width / 4, height / 4), { scale } = view;
    view.x = Math.min(width - inside, Math.max(inside - data.width * scale, view.x));
    view.y = Math.min(height - inside, Math.max(inside - data.height * scale, view.y));
  }
  function center(i) {
    move(width / 2 - across(i), height / 2 - down(i));
  }
  function intoSight(i) {
    const x = across(i), y = down(i), margin = 60;
    if (x < margin || y < margin || x > width - margin || y > height - margin) center(i);
  }
  function resize() {
    const before = [width, height];
    ratio = devicePixelRatio || 1;
    ({ clientWidth: width, clientHeight: height } = map);
    map.width = Math.round(width * ratio);
    map.height = Math.round(height * ratio);
    if (before[0] && view.scale !== fitted) move((width - before[0]) / 2, (height - before[1]) / 2);
    else showAll();
  }

  // The card ----------------------------------------------------------------------------------------------------------
  const className = i => (data.class[i] < 0 ? "" : data.classes[data.class[i]].name);
  const described = i => data.names[i] + (className(i) ? `, ${className(i)}` : "");
  function make(tag, text, attributes = {}) {
    const made = document.createElement(tag);
    if (text) made.textContent = text;
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  }
  function chip(fill) {
    const made = make("span", "", { class: "chip" });
    made.style.background = fill;
    return made;
  }
  function showCard(i) {
    card.hidden = i < 0;
    element("empty").hidden = i >= 0;
    if (i < 0 || card.dataset.of === String(i)) { if (i < 0) delete card.dataset.of; return; }
    card.dataset.of = i;
    element("photo").src = photoName(i);
    element("photo").alt = `Picture ${described(i)}`;
    element("name").textContent = data.names[i];
    element("class").replaceChildren(...(className(i) ? [chip(color(i)), className(i)] : []));
    element("nearest").hidden = !data.near[i].length;
    element("near").replaceChildren(...data.near[i].map((j, n) => {
      const far = data.far[i][n].toFixed(3);
      const button = make("button", "", { type: "button", "aria-label": `Neighbor ${n + 1}: ${described(j)}, distance ${far}` });
      button.title = `${described(j)}, ${far}`;
      button.style.borderColor = color(j);
      button.append(make("img", "", { src: photoName(j), alt: "", loading: "lazy" }), far);
      button.addEventListener("click", () => { keep(j); intoSight(j); });
      const item = make("li");
      item.append(button);
      return item;
    }));
  }
  function keep(i) {
    kept = i;
    over = NONE;
    showCard(i);
    said.textContent = i < 0 ? "" : `${described(i)}. Nearest: ${data.near[i].slice(0, 3).map(described).join("; ")}`;
    try { history.replaceState(null, "", i < 0 ? "#" : `#${i}`); } catch { /* a frame may not */ }
    redraw();
  }
  function point(i) {
    if (i === over) return;
    over = i;
    map.classList.toggle("over", i >= 0);
    if (kept < 0 && i >= 0) showCard(i);
    redraw();
  }
  function at(x, y) {
    for (let n = tiles.length - 1; n >= 0; n--) {
      const [i, left, top, size] = tiles[n];
      if (x >= left && x <= left + size && y >= top && y <= top + size) return i;
    }
    let best = NONE, least = 14 * 14;
    for (let i = 0; i < N; i++) {
      if (!active(i)) continue;
      const distance = (across(i) - x) ** 2 + (down(i) - y) ** 2;
      if (distance < least) [best, least] = [i, distance];
    }
    return best;
  }

  // Mouse, fingers, keys ----------------------------------------------------------------------------------------------
  const pointers = new Map();
  let dragged = 0;
  map.addEventListener("pointerdown", event => {
    pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
    dragged = pointers.size > 1 ? Infinity : 0;
    map.setPointerCapture(event.pointerId);
  });
  map.addEventListener("pointermove", event => {
    const here = [event.offsetX, event.offsetY], last = pointers.get(event.pointerId);
    if (!last) { point(at(...here)); return; }
    const other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
    if (other) {
      const spread = p => Math.max(1, Math.hypot(p[0] - other[0], p[1] - other[1]));
      zoom(spread(here) / spread(last), other[0], other[1]);
    } else {
      dragged += Math.hypot(here[0] - last[0], here[1] - last[1]);
      if (dragged > 4) { map.classList.add("drag"); move(here[0] - last[0], here[1] - last[1]); }
    }
    pointers.set(event.pointerId, here);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    map.addEventListener(name, event => {
      pointers.delete(event.pointerId);
      map.classList.remove("drag");
      if (name === "pointerup" && dragged <= 4) {
        const i = at(event.offsetX, event.offsetY);
        keep(i === kept ? NONE : i);
      }
    });
  }
  map.addEventListener("pointerleave", () => point(NONE));
  map.addEventListener("wheel", event => {
    event.preventDefault();
    const lines = event.deltaMode ? 20 : 1;
    zoom(Math.exp(-Math.max(-80, Math.min(80, event.deltaY * lines)) * 0.004), event.offsetX, event.offsetY);
  }, { passive: false });

  function step(dx, dy) {
    const from = kept >= 0 && active(kept) ? [across(kept), down(kept)] : [width / 2, height / 2];
    let best = NONE, least = Infinity;
    for (let i = 0; i < N; i++) {
      if (i === kept || !active(i)) continue;
      const x = across(i) - from[0], y = down(i) - from[1];
      const along = x * dx + y * dy, beside = Math.abs(x * dy) + Math.abs(y * dx);
      if (kept >= 0 && (along <= 0 || beside > along)) continue;
      const distance = kept >= 0 ? along + 2 * beside : Math.hypot(x, y);
      if (distance < least) [best, least] = [i, distance];
    }
    if (best >= 0) { keep(best); intoSight(best); }
  }
  map.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const arrow = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (arrow && event.shiftKey) move(-arrow[0] * 80, -arrow[1] * 80);
    else if (arrow) step(...arrow);
    else if (event.key === "+" || event.key === "=") zoom(1.4);
    else if (event.key === "-") zoom(1 / 1.4);
    else if (event.key === "0") showAll();
    else if (event.key === "Enter" && kept >= 0) center(kept);
    else return;
    event.preventDefault();
  });
  document.addEventListener("keydown", event => {
    if (event.key === "/" && event.target.tagName !== "INPUT") {
      event.preventDefault();
      element("search").focus();
    } else if (event.key === "Escape" && !(event.target === element("search") && event.target.value)) {
      keep(NONE);
    }
  });
  element("in").addEventListener("click", () => zoom(1.6));
  element("out").addEventListener("click", () => zoom(1 / 1.6));
  element("reset").addEventListener("click", showAll);
  element("mode").addEventListener("change", redraw);
  element("size").addEventListener("input", redraw);

  // Search ------------------------------------------------------------------------------------------------------------
  const texts = data.names.map((name, i) => `${name}\n${className(i)}`.toLowerCase());
  const search = element("search");
  search.addEventListener("input", () => {
    const wanted = search.value.trim().toLowerCase();
    matches = wanted ? new Set(order.filter(i => texts[i].includes(wanted))) : null;
    element("found").textContent = matches ? `${matches.size} found` : "";
    redraw();
  });
  search.addEventListener("keydown", event => {
    if (event.key !== "Enter" || !matches?.size) return;
    const found = [...matches].filter(visible).sort((a, b) => a - b);
    if (!found.length) return;
    const next = found.find(i => i > kept) ?? found[0];
    keep(next);
    intoSight(next);
  });

  // Classes -----------------------------------------------------------------------------------------------------------
  const counts = data.classes.map(() => 0);
  for (const kind of data.class) if (kind >= 0) counts[kind]++;
  const buttons = data.classes.map((kind, n) => {
    const button = make("button", "", { type: "button" });
    button.title = `${kind.name}: shift-click shows this one only`;
    button.append(chip(kind.color), make("span", kind.name), make("span", String(counts[n])));
    button.addEventListener("click", event => {
      if (event.shiftKey) shown.forEach((_, m) => { shown[m] = m === n; });
      else shown[n] = !shown[n];
      pressed();
    });
    const item = make("li");
    item.append(button);
    element("classes").append(item);
    return button;
  });
  function pressed() {
    buttons.forEach((button, n) => button.setAttribute("aria-pressed", String(shown[n])));
    redraw();
  }
  element("every").addEventListener("click", () => { shown.fill(true); pressed(); });
  element("none").addEventListener("click", () => { shown.fill(false); pressed(); });

  // Colours -----------------------------------------------------------------------------------------------------------
  const prefers = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  function readColours() {
    const style = getComputedStyle(root);
    colors = Object.fromEntries(["paper", "ink", "faint", "line", "mark"].map(n => [n, style.getPropertyValue(`--${n}`).trim()]));
    redraw();
  }
  try {
    const chosen = localStorage.getItem("jaxviz theme");  // the gallery's choice, too
    if (chosen === "dark" || chosen === "light") root.dataset.theme = chosen;
  } catch { /* not remembered */ }
  element("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : prefers.matches;
    root.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("jaxviz theme", root.dataset.theme); } catch { /* not remembered */ }
    readColours();
  });
  prefers.addEventListener("change", readColours);

  pressed();
  readColours();
  new ResizeObserver(resize).observe(map);
  resize();
  function follow() {
    const wanted = /^#\d+$/.test(location.hash) ? Number(location.hash.slice(1)) : NONE;
    if (wanted >= 0 && wanted < N) { keep(wanted); intoSight(wanted); }
  }
  addEventListener("hashchange", follow);
  follow();
})();
