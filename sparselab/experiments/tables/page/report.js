"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (selector, root = document) => root.querySelector(selector);
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
  // Text goes in as text nodes only: nothing from a record is ever parsed as HTML.
  const make = (name, attributes = {}, ...children) => {
    const svg = ["svg", "g", "path", "circle", "rect", "text", "line", "title", "a"].includes(name) && attributes.svg !== false;
    const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) if (key !== "svg") node.setAttribute(key, value);
    node.append(...children);
    return node;
  };

  // Theme: auto follows the system; the choice is kept where the browser allows it.
  const themes = ["auto", "light", "dark"];
  const button = $("#theme");
  const keep = (value) => { try { localStorage.setItem("sparselab-theme", value); } catch { /* file: pages may not */ } };
  const kept = () => { try { return localStorage.getItem("sparselab-theme"); } catch { return null; } };
  const dress = (theme) => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
    button.dataset.theme = theme;
  };
  button.addEventListener("click", () => {
    const next = themes[(themes.indexOf(button.dataset.theme) + 1) % themes.length];
    dress(next); keep(next);
  });
  dress(themes.includes(kept()) ? kept() : "auto");

  // Numbers as the tables print them: "98.21 ± 0.13 (5)", "−0.4", "4.12 M"; a dash sorts last.
  const units = { k: 1e3, M: 1e6, G: 1e9, T: 1e12, P: 1e15 };
  const number = (text) => {
    const match = /^([+−-]?[\d.]+(?:e[+-]?\d+)?)(?: ([kMGTP])(?![a-z]))?/.exec(text.trim());
    return match ? parseFloat(match[1].replace("−", "-")) * (units[match[2]] || 1) : null;
  };
  const compare = new Intl.Collator(undefined, { numeric: true }).compare;
  for (const table of $$("table.sortable")) {
    const body = table.tBodies[0], original = [...body.rows];
    $$("thead th", table).forEach((head, column) => $("button", head).addEventListener("click", () => {
      const order = { none: "ascending", ascending: "descending", descending: "none" }[head.getAttribute("aria-sort")];
      $$("thead th", table).forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", order);
      const sign = order === "descending" ? -1 : 1, numeric = head.classList.contains("n");
      const keys = new Map(original.map((row) => [row, row.cells[column].textContent.trim()]));
      if (numeric) for (const [row, text] of keys) keys.set(row, number(text));
      const sorted = order === "none" ? original : [...original].sort((a, b) => {
        const x = keys.get(a), y = keys.get(b);
        if (numeric) return (x === null) - (y === null) || (x === null ? 0 : sign * (x - y));
        return sign * compare(x, y);
      });
      body.append(...sorted);
    }));
  }

  // Filter: every word must be in the row; C3 means that claim and not C31.
  for (const section of $$("section.paper")) {
    const input = $("input[type=search]", section), count = $(".count", section), rows = [...$("table.cells", section).tBodies[0].rows];
    let texts = null;
    const filter = () => {
      texts ??= new Map(rows.map((row) => [row, [...row.cells].map((cell) => cell.textContent.trim()).join(" ").toLowerCase()]));
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      const tests = words.map((word) => /^c\d+$/.test(word) ? ((re) => (text) => re.test(text))(new RegExp(`\\b${word}\\b`)) : (text) => text.includes(word));
      let shown = 0;
      for (const row of rows) { row.hidden = !tests.every((test) => test(texts.get(row))); shown += !row.hidden; }
      count.textContent = words.length ? `${shown} of ${rows.length} cells` : `${rows.length} cells`;
    };
    count.textContent = `${rows.length} cells`;
    input.addEventListener("input", filter);
    for (const link of $$("[data-filter]", section)) link.addEventListener("click", () => {
      input.value = input.value === link.dataset.filter ? "" : link.dataset.filter;
      filter();
      input.scrollIntoView({ block: "center" });
      input.focus();
    });
  }

  // A record: the address #r-<table>-<number> opens it, so a link to a record can be copied and Back closes it.
  const dialog = $("#record"), body = $("#record-body"), title = $("#record-title");
  const address = (table, index) => `r-${table.anchor}-${index}`;
  const open = (heading, nodes) => {
    title.textContent = heading;
    body.replaceChildren(...nodes);
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    title.focus();
  };
  const record = ([table, layers], index) => {
    const [row, column, seed, shape, values, overrides] = table.records[index], text = (number) => table.pool[number];
    const list = make("dl");
    table.shapes[shape].forEach((key, i) => list.append(make("dt", {}, text(key)), make("dd", {}, text(values[i]))));
    const nodes = [make("p", {}, `${table.name}, tier ${table.tier}: ${text(row)} · ${text(column)} · seed ${seed}`), list];
    if (overrides.length) {
      const quote = (word) => /[^\w=.,:/@%+-]/.test(word) ? `'${word.replaceAll("'", "'\\''")}'` : word;
      nodes.push(make("h3", {}, "The command that reproduces it"), make("pre", {}, ["python run.py", ...overrides.map((i) => quote(text(i)))].join(" ")));
    }
    if (layers && layers[1][index].length) {
      const grid = make("table", {}, make("thead", {}, make("tr", {}, ...["layer", "shape", "pattern", "density"].map((head) => make("th", { scope: "col" }, head)))));
      const rows = make("tbody");
      for (const layer of layers[1][index]) rows.append(make("tr", {}, ...JSON.parse(layers[0][layer]).map((cell) => make("td", {}, cell))));
      grid.append(rows);
      nodes.push(make("h3", {}, "Layers"), make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Layers" }, grid));
    }
    open(`Record ${table.ids[index]}`, nodes);
  };
  const cell = (table, line) => {
    const link = (index) => make("li", {}, make("a", { svg: false, href: `#${address(table, index)}` }, table.ids[index]), ` · seed ${table.records[index][2]}`);
    open(`${line.row} · ${line.column}`, [make("p", {}, line.ours + (line.published === null ? "" : `, published ${line.published.value}`)), make("ul", {}, ...line.records.map(link))]);
  };
  const follow = () => {
    const match = /^#r-(.+)-(\d+)$/.exec(location.hash), held = match && data[match[1]];
    if (held && held[0].records[match[2]]) record(held, Number(match[2]));
    else if (dialog.open) dialog.close();
  };
  addEventListener("hashchange", follow);
  dialog.addEventListener("close", () => { if (/^#r-.+-\d+$/.test(location.hash)) history.replaceState(null, "", " "); });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

  // Figures: drawn when they come near the screen.
  const W = 480, H = 330, L = 52, R = 14, T = 14, B = 44;
  const shapes = [
    (x, y, r) => `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0z`,
    (x, y, r) => `M${x - r} ${y - r}h${2 * r}v${2 * r}h${-2 * r}z`,
    (x, y, r) => `M${x} ${y - 1.3 * r}l${1.3 * r} ${1.3 * r}l${-1.3 * r} ${1.3 * r}l${-1.3 * r} ${-1.3 * r}z`,
    (x, y, r) => `M${x} ${y - 1.25 * r}l${1.2 * r} ${2.1 * r}h${-2.4 * r}z`,
    (x, y, r) => `M${x} ${y + 1.25 * r}l${1.2 * r} ${-2.1 * r}h${-2.4 * r}z`,
    (x, y, r) => `M${x - 1.3 * r} ${y - r / 2}h${0.8 * r}v${-0.8 * r}h${r}v${0.8 * r}h${0.8 * r}v${r}h${-0.8 * r}v${0.8 * r}h${-r}v${-0.8 * r}h${-0.8 * r}z`,
    (x, y, r) => `M${x - 1.1 * r} ${y - 1.1 * r}h${2.2 * r}l${-2.2 * r} ${2.2 * r}h${2.2 * r}z`,
    (x, y, r) => `M${x - 1.5 * r} ${y - r / 2}h${3 * r}v${r}h${-3 * r}z`,
  ];
  const dashes = ["none", "7 2.5", "2 2.5", "8 2.5 2 2.5"];
  const ticks = (low, high) => {
    const raw = (high - low) / 6, power = 10 ** Math.floor(Math.log10(raw)), step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9)), found = [];
    for (let value = Math.ceil(low / step - 1e-9) * step; value <= high + step * 1e-9; value += step) found.push([value, Math.abs(value).toFixed(digits) === (0).toFixed(digits) ? "0" : value.toFixed(digits)]);
    return found;
  };
  const short = (value) => { for (const [unit, size] of Object.entries(units).reverse()) if (value >= size) return `${+(value / size).toPrecision(3)} ${unit}`; return `${+value.toPrecision(3)}`; };
  const decades = (low, high) => { // ticks of a logarithmic axis
    const found = [];
    for (let power = Math.floor(low); power <= high; power++) for (const m of high - low < 2.5 ? [1, 2, 5] : [1]) {
      const at = power + Math.log10(m);
      if (at >= low - 1e-9 && at <= high + 1e-9) found.push([at, short(m * 10 ** power)]);
    }
    return found;
  };
  const range = (values) => {
    let low = Infinity, high = -Infinity;
    for (const value of values) { if (value < low) low = value; if (value > high) high = value; }
    const pad = (high - low) * 0.06 || Math.abs(high) * 0.02 || 1;
    return [low - pad, high + pad];
  };
  const panel = (table, hidden, key, label, log, published) => {
    const value = (v) => (v === null || (log && v <= 0) ? null : log ? Math.log10(v) : v);
    const up = (v) => (!table.axis.log_metric ? v : v > 0 ? Math.log10(v) : null); // of the metric; no place for what is not above 0
    const curves = table.curves.map(([name, lines, style], i) => ({ name, i, style, lines: lines.map((l) => table.lines[l]) })).filter((c) => !hidden.has(c.i));
    const points = [];
    for (const curve of curves) for (const line of curve.lines) {
      if (line.mean !== null && up(line.mean) !== null && value(line[key]) !== null) points.push({ curve, line, x: value(line[key]), y: up(line.mean), low: up(line.mean - (line.sd || 0)) ?? up(line.mean), high: up(line.mean + (line.sd || 0)) });
    }
    const hollow = published ? curves.flatMap((curve) => curve.lines.filter((l) => l.published && l.published.verified && l.requested !== null).map((line) => ({ curve, line, x: line.requested, y: up(line.published.number) }))) : [];
    const svg = make("svg", { viewBox: `0 0 ${W} ${H}`, role: "group", "aria-label": `${table.metric} against ${label}` });
    const all = [...points, ...hollow];
    if (!all.length) { svg.append(make("text", { x: W / 2, y: H / 2, "text-anchor": "middle" }, "nothing to draw yet")); return svg; }
    const [x0, x1] = range(all.map((p) => p.x)), [y0, y1] = range([...points.flatMap((p) => [p.low, p.high, ...p.line.values.map(up).filter((v) => v !== null)]), ...hollow.map((p) => p.y)]);
    const X = (v) => L + ((v - x0) / (x1 - x0)) * (W - L - R), Y = (v) => H - B - ((v - y0) / (y1 - y0)) * (H - T - B);
    for (const [v, name] of table.axis.log_metric ? decades(y0, y1) : ticks(y0, y1)) svg.append(make("line", { class: "grid", x1: L, x2: W - R, y1: Y(v), y2: Y(v) }), make("text", { x: L - 7, y: Y(v) + 4, "text-anchor": "end" }, name));
    for (const [v, name] of log ? decades(x0, x1) : ticks(x0, x1)) svg.append(make("line", { class: "grid", x1: X(v), x2: X(v), y1: T, y2: H - B }), make("text", { x: X(v), y: H - B + 17, "text-anchor": "middle" }, name));
    svg.append(make("text", { x: (L + W - R) / 2, y: H - 8, "text-anchor": "middle" }, label), make("text", { transform: `translate(13 ${(T + H - B) / 2}) rotate(-90)`, "text-anchor": "middle" }, table.metric));
    for (const curve of curves) {
      const mine = points.filter((p) => p.curve === curve).sort((a, b) => a.x - b.x), colour = `var(--s${curve.style[0]})`, shape = shapes[curve.style[1]];
      const group = make("g", { stroke: colour, fill: colour });
      const places = []; // a curve goes through the mean of two points that share a place, and nowhere where more do
      for (const p of mine) {
        if (places.length && p.x - places.at(-1)[0].x <= 0.005 * Math.max(mine.at(-1).x - mine[0].x, Math.abs(mine.at(-1).x))) places.at(-1).push(p);
        else places.push([p]);
      }
      const mean = (numbers) => numbers.reduce((a, b) => a + b) / numbers.length;
      const way = places.map((place) => `${X(mean(place.map((p) => p.x))).toFixed(1)} ${Y(mean(place.map((p) => p.y))).toFixed(1)}`);
      if (way.length > 1 && places.every((place) => place.length < 3)) group.append(make("path", { class: "curve", "stroke-dasharray": dashes[curve.style[2]], d: "M" + way.join("L") }));
      for (const p of hollow.filter((h) => h.curve === curve)) {
        const mark = make("path", { class: "hollow", d: shape(X(p.x), Y(p.y), 5) }, make("title", {}, `published: ${p.line.row} · ${p.line.column}: ${p.line.published.value} (${p.line.published.provenance})`));
        mark.addEventListener("click", () => cell(table, p.line));
        group.append(mark);
      }
      for (const p of mine) {
        if (p.line.sd) group.append(make("path", { class: "bar", d: `M${X(p.x)} ${Y(p.low)}V${Y(p.high)}M${X(p.x) - 3} ${Y(p.low)}h6M${X(p.x) - 3} ${Y(p.high)}h6` }));
        p.line.records.forEach((index, k) => {
          const dot = make("circle", { class: "seed", cx: X(value(p.line[key + "s"][k]) ?? p.x), cy: Y(up(p.line.values[k]) ?? y0), r: 2.2, stroke: "none", "data-record": address(table, index) }, make("title", {}, `${p.line.row} · ${p.line.column}, seed ${table.records[index][2]}: ${p.line.values[k]}`));
          dot.addEventListener("click", () => { location.hash = address(table, index); });
          group.append(dot);
        });
        const single = p.line.records.length === 1;
        const mark = make("path", { class: "mean", d: shape(X(p.x), Y(p.y), 4.2), tabindex: 0, role: "button", "aria-label": `${p.line.row}, ${p.line.column}: ${p.line.ours}` }, make("title", {}, `${p.line.row} · ${p.line.column}: ${p.line.ours}`));
        const show = () => { if (single) location.hash = address(table, p.line.records[0]); else cell(table, p.line); };
        mark.addEventListener("click", show);
        mark.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); show(); } });
        group.append(mark);
      }
      svg.append(group);
    }
    return svg;
  };
  const draw = (figure) => {
    const [table] = data[figure.dataset.table], hidden = new Set();
    const any = table.axis.sparsity && table.lines.some((l) => l.published && l.published.verified);
    const state = { published: any && table.comparable };
    const panels = make("div", { class: "panels" }), legend = make("div", { class: "legend" });
    const paint = () => panels.replaceChildren(
      panel(table, hidden, "x", table.axis.label, table.axis.log, table.axis.sparsity && state.published),
      ...(table.trained ? [panel(table, hidden, "flops", table.cost, false, false)] : []));
    table.curves.forEach(([name, , [colour, shape, dash]], i) => {
      const line = make("path", { d: "M0 7H26", "stroke-dasharray": dashes[dash], "stroke-width": 1.6 }), mark = make("path", { d: shapes[shape](13, 7, 4) });
      const swatch = make("svg", { viewBox: "0 0 26 14", class: "swatch", "aria-hidden": "true", stroke: `var(--s${colour})`, fill: `var(--s${colour})` }, line, mark);
      const toggle = make("button", { type: "button", "aria-pressed": "true" }, swatch, name);
      toggle.addEventListener("click", () => { hidden.has(i) ? hidden.delete(i) : hidden.add(i); toggle.setAttribute("aria-pressed", String(!hidden.has(i))); paint(); });
      legend.append(toggle);
    });
    if (any) {
      const box = make("input", { type: "checkbox" });
      box.checked = state.published;
      box.addEventListener("change", () => { state.published = box.checked; paint(); });
      legend.append(make("label", { class: "key" }, box, table.comparable ? " published (hollow)" : " published (hollow; another setting)"));
    }
    legend.append(make("span", { class: "key" }, "filled: ours, mean ± sd; small: a seed"));
    paint();
    figure.replaceChildren(panels, legend);
  };
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) { watcher.unobserve(entry.target); draw(entry.target); }
  }, { rootMargin: "300px" });
  for (const figure of $$("figure[data-table]")) watcher.observe(figure);
  follow();
  document.documentElement.dataset.ready = "true";
})();
