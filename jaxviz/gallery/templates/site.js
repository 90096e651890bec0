// Search, sorting and keys. Every page can be read without it; nothing is asked of any network.
"use strict";
const jaxviz = (() => {
  const root = document.documentElement;
  const one = (selector, where = document) => where.querySelector(selector);
  const all = (selector, where = document) => [...where.querySelectorAll(selector)];

  // Browsers may forbid storage to pages from disk: then nothing is remembered.
  const memory = {
    get(name) { try { return localStorage.getItem("jaxviz " + name); } catch { return null; } },
    set(name, value) { try { localStorage.setItem("jaxviz " + name, value); } catch { /* not remembered */ } },
  };

  // Light and dark: what the reader's system prefers, until the button says otherwise. Set before the page is drawn.
  const chosen = memory.get("theme");
  if (chosen === "dark" || chosen === "light") root.dataset.theme = chosen;
  function turnTheme() {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    memory.set("theme", root.dataset.theme);
  }

  // The address after "#" holds what the reader chose, so that it is there again on the way back: sort=score&q=church
  const state = () => new URLSearchParams(location.hash.slice(1));
  function remember(changes) {
    const now = state();
    for (const [name, value] of Object.entries(changes)) value ? now.set(name, value) : now.delete(name);
    try { history.replaceState(null, "", "#" + now); } catch { /* pages from disk, in some browsers */ }
  }

  // A word of digits is the beginning of a unit's number, any other a part of the layer's name or of a class.
  const words = text => text.toLowerCase().split(/[\s:,]+/).filter(Boolean);
  const matches = (wanted, number, text) =>
    wanted.every(word => /^\d+$/.test(word) ? String(number).startsWith(word) || text.split(/\s+/).includes(word) : text.includes(word));

  // A layer's page: the tiles are there already; they are put in order and hidden.
  function unitsPage() {
    const grid = one("#units"), tiles = all("li", grid), layer = document.body.dataset.layer;
    const texts = new Map(tiles.map(tile => [tile, (one("h1").textContent + " " + tile.dataset.words).toLowerCase()]));
    function sort(by, focus) {
      const sign = by === "number" || by === "place" ? 1 : -1;
      const key = tile => sign * Number(tile.dataset[by]);
      tiles.sort((a, b) => key(a) - key(b) || a.dataset.number - b.dataset.number);
      grid.append(...tiles);
      walk();
    }
    function filter(text) {
      const wanted = words(text);
      let shown = 0;
      for (const tile of tiles) {
        tile.hidden = !matches(wanted, tile.dataset.number, texts.get(tile));
        shown += !tile.hidden;
      }
      one("#count").textContent = wanted.length ? `${shown} of ${tiles.length} units` : `${tiles.length} units`;
      one("#none").hidden = shown > 0;
      const more = one("#none a");
      more.href = more.href.split("#")[0] + "#q=" + encodeURIComponent(text);
      walk();
    }
    // The arrows on a unit's page walk through what is shown here.
    function walk() {
      const order = tiles.filter(tile => !tile.hidden).map(tile => tile.dataset.number);
      try { sessionStorage.setItem("jaxviz walk " + root.dataset.root + layer, order.join(" ")); } catch { /* by number */ }
    }
    const asked = state(), box = one(`#sort input[value="${CSS.escape(asked.get("sort") ?? "")}"]`);
    if (box && !box.checked) { box.checked = true; sort(box.value); }
    one("#sort").addEventListener("change", event => { sort(event.target.value); remember({ sort: event.target.value }); });
    one("#search").value = asked.get("q") ?? "";
    filter(one("#search").value);
    if (asked.get("at")) one(`li[data-number="${CSS.escape(asked.get("at"))}"] a`, grid)?.focus();
    return text => { filter(text); remember({ q: text }); };
  }

  // The first page: results of all layers take the place of the map.
  function mapPage() {
    const results = one("#results"), grid = one("ul", results), most = 240;
    const tile = (layer, [, number, name, score]) => {
      const stem = String(number).padStart(layer.digits, "0"), path = `layers/${encodeURIComponent(layer.slug)}/${stem}`;
      const item = document.createElement("li"), link = document.createElement("a"), image = new Image(128, 128);
      link.href = path + ".html";
      image.loading = "lazy";
      image.alt = `${layer.name}, unit ${number}${name ? ` (${name})` : ""}: the image that excites it most`;
      image.src = path + "-t.webp";
      const tag = document.createElement("span"), title = document.createElement("b"), value = document.createElement("i");
      tag.className = "tag";
      title.textContent = `${layer.name}:${name || number}`;
      value.textContent = score;
      tag.append(title, value);
      link.append(image, tag);
      item.append(link);
      return item;
    };
    function search(text) {
      const wanted = words(text), data = found.data;
      results.hidden = !wanted.length;
      one("#map").hidden = wanted.length > 0;
      if (!wanted.length || !data) return;
      const hits = data.units.filter(([layer, number, name, , said]) =>
        matches(wanted, number, `${data.layers[layer].name} ${name} ${said.map(word => data.words[word]).join(" ")}`.toLowerCase()));
      one("p", results).textContent = `${hits.length} of ${data.units.length} units` + (hits.length > most ? `, the first ${most} shown.` : ".");
      grid.replaceChildren(...hits.slice(0, most).map(hit => tile(data.layers[hit[0]], hit)));
    }
    one("#search").value = state().get("q") ?? "";
    search(one("#search").value);
    if (state().get("at")) one(`.stop[href*="/${CSS.escape(state().get("at"))}/"]`)?.focus();
    return text => { search(text); remember({ q: text }); };
  }

  // A unit's page: another search leads to the first page; the arrows turn to the units beside it.
  function unitPage() {
    const { layer, number } = document.body.dataset;
    let order = [];
    try { order = (sessionStorage.getItem("jaxviz walk " + root.dataset.root + layer) ?? "").split(" "); } catch { /* by number */ }
    const at = order.indexOf(number);
    if (at >= 0) for (const [rel, to] of [["prev", order[at - 1]], ["next", order[at + 1]]]) {
      const stem = to && String(to).padStart(location.pathname.match(/(\d+)\.html$/)?.[1].length ?? 4, "0");
      const place = all(".pages > *")[rel === "prev" ? 0 : 1], link = document.createElement(stem ? "a" : "span");
      link.textContent = place.textContent;
      if (stem) { link.rel = rel; link.href = stem + ".html"; link.setAttribute("aria-label", "Unit " + to); }
      place.replaceWith(link);
    }
    return null;
  }

  function found(data) { found.data = data; }

  // From tile to tile. Tiles of a grid are alike, so that they can be counted: asking thousands of tiles that are out of
  // sight for their places would lay each of them out.
  function step(key) {
    const active = document.activeElement;
    const grid = active.closest(".grid") ?? all(".grid").find(one => !one.closest("[hidden]"));
    if (!grid) return stepOnMap(key);
    const items = [...grid.children].filter(item => !item.hidden), here = items.indexOf(active.closest("li"));
    const columns = getComputedStyle(grid).gridTemplateColumns.split(" ").length;
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[key];
    const to = items[here < 0 ? 0 : here + by];
    if (to) one("a", to).focus();
  }

  // On the map: left and right in order, up and down to the nearest of the next row.
  function stepOnMap(key) {
    const seen = link => {  // strips are cut to whole rows
      const strip = link.closest(".strip");
      return !strip || link.getBoundingClientRect().top < strip.getBoundingClientRect().bottom - 4;
    };
    const links = all(".stop, .strip a").filter(seen), here = links.indexOf(document.activeElement);
    if (here < 0) return links[0]?.focus();
    if (key === "ArrowLeft" || key === "ArrowRight") return links[here + (key === "ArrowRight" ? 1 : -1)]?.focus();
    const from = links[here].getBoundingClientRect(), down = key === "ArrowDown" ? 1 : -1;
    let best = null, least = Infinity;
    for (const link of links) {
      const to = link.getBoundingClientRect(), rows = down * (to.top - from.top);
      const far = rows * 4 + Math.abs(to.left - from.left);
      if (rows > 2 && far < least) { least = far; best = link; }
    }
    best?.focus();
  }

  function up() {
    const to = document.body.dataset.up;
    if (to) location.href = to;
  }

  function keys(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || one("dialog[open]")) return;
    const search = one("#search"), typing = document.activeElement === search;
    const key = event.key;
    if (typing) {
      if (key === "Escape") {
        event.preventDefault();
        if (search.value) { search.value = ""; search.dispatchEvent(new Event("input")); } else search.blur();
      } else if (key === "ArrowDown") { event.preventDefault(); search.blur(); step(key); }
      return;
    }
    if (document.activeElement?.matches("input") && key.startsWith("Arrow")) return;
    if (key === "/") search.focus(), search.select();
    else if (key === "?") one("#keys").showModal();
    else if (key === "t") turnTheme();
    else if (key === "Escape") {
      if (search.value) { search.value = ""; search.dispatchEvent(new Event("input")); } else up();
    } else if (key.startsWith("Arrow")) {
      const page = { ArrowLeft: "prev", ArrowRight: "next" }[key];
      if (document.body.classList.contains("unit") && !document.activeElement?.closest(".grid")) {
        if (page) { const link = one(`.pages a[rel=${page}]`); if (link) location.href = link.href; return; }
        return;  // up and down scroll
      }
      step(key);
    } else return;
    event.preventDefault();
  }

  addEventListener("DOMContentLoaded", () => {
    const kind = document.body.classList;
    const search = one("#search");
    let late;
    const react = kind.contains("units") ? unitsPage() : kind.contains("map") ? mapPage() : unitPage();
    if (react) search.addEventListener("input", () => { clearTimeout(late); late = setTimeout(() => react(search.value), 60); });
    one(".search").addEventListener("submit", event => {
      event.preventDefault();
      if (react) { react(search.value); search.blur(); step("ArrowDown"); }
      else location.href = root.dataset.root + "index.html#q=" + encodeURIComponent(search.value);
    });
    one("#theme").addEventListener("click", turnTheme);
    one("#help").addEventListener("click", () => one("#keys").showModal());
    addEventListener("keydown", keys);
    if (kind.contains("map")) addEventListener("hashchange", () => {
      search.value = state().get("q") ?? "";
      react(search.value);
    });
  });
  return { found };
})();
