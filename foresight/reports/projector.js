// Interactive projections: drag to move, wheel or pinch to zoom, hover to see the sample in every panel.
for (const host of document.querySelectorAll("[data-projector]")) {
  const data = JSON.parse(document.getElementById(host.dataset.projector).textContent);
  const sheet = host.querySelector("img.sheet");
  const n = data.keys.length, hidden = new Set();
  let marked = -1;
  const panels = data.panels.map(addPanel);
  const tip = host.appendChild(document.createElement("div"));
  tip.className = "tip";
  tip.hidden = true;
  const thumb = tip.appendChild(document.createElement("div"));
  const label = tip.appendChild(document.createElement("strong"));
  const key = tip.appendChild(document.createElement("span"));
  addLegend();
  document.documentElement.classList.add("live");

  function addPanel(panel) {
    const box = host.querySelector(".panels").appendChild(document.createElement("div"));
    const canvas = box.appendChild(document.createElement("canvas"));
    const title = box.appendChild(document.createElement("p"));
    const shares = panel.explained.map((s) => Math.round(100 * s) + " %").join(" + ");
    title.textContent = panel.point + (shares ? " · " + shares + " of the variance" : "");
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", panel.point + ": " + host.getAttribute("aria-label"));
    const p = { panel, canvas, view: { x: 0, y: 0, zoom: 1 }, pointers: new Map(), dragged: 0 };
    new ResizeObserver(() => draw(p)).observe(canvas);
    listen(p);
    return p;
  }

  function addLegend() {
    const legend = host.querySelector(".legend");
    data.names.forEach((name, code) => {
      const button = legend.appendChild(document.createElement("button"));
      const mark = button.appendChild(document.createElement("canvas"));
      mark.width = mark.height = 28;
      button.type = "button";
      button.append(name);
      button.setAttribute("aria-pressed", "true");
      button.dataset.code = code;
      button.addEventListener("click", () => {
        const off = !hidden.has(code);
        off ? hidden.add(code) : hidden.delete(code);
        button.setAttribute("aria-pressed", String(!off));
        drawAll();
      });
    });
  }

  function place(p, i) {
    const { width, height } = p.canvas.getBoundingClientRect(), v = p.view, m = 14;
    const x = m + (p.panel.x[i] / data.steps) * (width - 2 * m);
    const y = height - m - (p.panel.y[i] / data.steps) * (height - 2 * m);
    return [x * v.zoom + v.x, y * v.zoom + v.y];
  }

  function colours() {
    const css = getComputedStyle(host), get = (name) => css.getPropertyValue(name).trim();
    return { ink: get("--ink"), paper: get("--card"), other: get("--muted"), series: [...Array(8).keys()].map((i) => get("--s" + i)) };
  }

  function colour(c, code) {
    return data.names[code] === "other" ? c.other : c.series[code % 8];
  }

  function shape(g, code, x, y, r) {
    g.beginPath();
    switch (data.names[code] === "other" ? -1 : code % 8) {
      case -1: g.arc(x, y, r * 0.6, 0, 7); break;
      case 0: g.arc(x, y, r, 0, 7); break;
      case 1: g.rect(x - r * 0.9, y - r * 0.9, r * 1.8, r * 1.8); break;
      case 2: g.moveTo(x, y - r * 1.2); g.lineTo(x + r * 1.1, y + r * 0.8); g.lineTo(x - r * 1.1, y + r * 0.8); break;
      case 3: g.moveTo(x, y - r * 1.3); g.lineTo(x + r * 1.1, y); g.lineTo(x, y + r * 1.3); g.lineTo(x - r * 1.1, y); break;
      case 4: g.moveTo(x, y + r * 1.2); g.lineTo(x + r * 1.1, y - r * 0.8); g.lineTo(x - r * 1.1, y - r * 0.8); break;
      case 5: g.rect(x - r * 0.4, y - r * 1.2, r * 0.8, r * 2.4); g.rect(x - r * 1.2, y - r * 0.4, r * 2.4, r * 0.8); break;
      case 6: g.rect(x - r * 1.3, y - r * 0.5, r * 2.6, r); break;
      default: g.arc(x, y, r, 0, Math.PI);
    }
    g.closePath();
  }

  function draw(p) {
    const { width, height } = p.canvas.getBoundingClientRect(), ratio = devicePixelRatio || 1;
    if (!width) return;
    p.canvas.width = Math.round(width * ratio);
    p.canvas.height = Math.round(height * ratio);
    const g = p.canvas.getContext("2d"), c = colours();
    g.scale(ratio, ratio);
    const r = Math.min(3.4 * Math.sqrt(p.view.zoom), 8) * (n > 1500 ? 0.7 : 1);
    g.globalAlpha = 0.8;
    for (let i = 0; i < n; i++) {
      if (hidden.has(data.codes[i])) continue;
      const [x, y] = place(p, i);
      if (x < -9 || y < -9 || x > width + 9 || y > height + 9) continue;
      g.fillStyle = colour(c, data.codes[i]);
      shape(g, data.codes[i], x, y, r);
      g.fill();
    }
    if (marked >= 0) {
      const [x, y] = place(p, marked);
      g.globalAlpha = 1;
      g.fillStyle = colour(c, data.codes[marked]);
      shape(g, data.codes[marked], x, y, r + 2);
      g.fill();
      g.lineWidth = 2.5;
      g.strokeStyle = c.ink;
      g.beginPath();
      g.arc(x, y, r + 6, 0, 7);
      g.stroke();
    }
  }

  function drawAll() {
    panels.forEach(draw);
    const c = colours();
    for (const button of host.querySelectorAll(".legend button")) {
      const g = button.firstChild.getContext("2d"), code = Number(button.dataset.code);
      g.clearRect(0, 0, 28, 28);
      g.fillStyle = colour(c, code);
      shape(g, code, 14, 14, 9);
      g.fill();
    }
  }

  function nearest(p, x, y) {
    let best = -1, least = 16 * 16;
    for (let i = 0; i < n; i++) {
      if (hidden.has(data.codes[i])) continue;
      const [a, b] = place(p, i), d = (a - x) ** 2 + (b - y) ** 2;
      if (d < least) { least = d; best = i; }
    }
    return best;
  }

  function mark(p, i) {
    if (i === marked && i < 0) return;
    marked = i;
    drawAll();
    tip.hidden = i < 0;
    if (i < 0) return;
    label.textContent = data.labels[i];
    key.textContent = data.keys[i];
    const tile = data.tiles[i], size = 112;
    thumb.hidden = tile < 0 || !sheet;
    if (!thumb.hidden) {
      thumb.style.backgroundImage = "url(" + sheet.src + ")";
      thumb.style.backgroundSize = data.columns * size + "px " + data.rows * size + "px";
      thumb.style.backgroundPosition = -(tile % data.columns) * size + "px " + -Math.floor(tile / data.columns) * size + "px";
    }
    const box = p.canvas.getBoundingClientRect(), [x, y] = place(p, i);
    const left = Math.min(Math.max(box.left + x + 16, 8), innerWidth - tip.offsetWidth - 8);
    const top = Math.min(Math.max(box.top + y + 16, 8), innerHeight - tip.offsetHeight - 8);
    tip.style.left = left + "px";
    tip.style.top = top + "px";
  }

  function zoom(p, factor, x, y) {
    const v = p.view, next = Math.min(Math.max(v.zoom * factor, 1), 60), f = next / v.zoom;
    p.view = next === 1 ? { x: 0, y: 0, zoom: 1 } : { x: x - (x - v.x) * f, y: y - (y - v.y) * f, zoom: next };
    draw(p);
  }

  function listen(p) {
    const c = p.canvas, at = (e) => { const b = c.getBoundingClientRect(); return [e.clientX - b.left, e.clientY - b.top]; };
    c.addEventListener("pointerdown", (e) => { p.pointers.set(e.pointerId, at(e)); p.dragged = 0; c.setPointerCapture(e.pointerId); });
    for (const end of ["pointerup", "pointercancel"]) c.addEventListener(end, (e) => {
      p.pointers.delete(e.pointerId);
      if (end === "pointerup" && e.pointerType !== "mouse" && p.dragged < 8) mark(p, nearest(p, ...at(e)));
    });
    c.addEventListener("pointerleave", () => { if (!p.pointers.size) mark(p, -1); });
    c.addEventListener("pointermove", (e) => {
      const now = at(e), was = p.pointers.get(e.pointerId);
      if (!was) { if (e.pointerType === "mouse") mark(p, nearest(p, ...now)); return; }
      const others = [...p.pointers].filter(([id]) => id !== e.pointerId).map(([, q]) => q);
      p.dragged += Math.hypot(now[0] - was[0], now[1] - was[1]);
      if (others.length) {
        const o = others[0], before = Math.hypot(was[0] - o[0], was[1] - o[1]), after = Math.hypot(now[0] - o[0], now[1] - o[1]);
        if (before > 4) zoom(p, after / before, (now[0] + o[0]) / 2, (now[1] + o[1]) / 2);
      } else if (p.view.zoom > 1) { p.view.x += now[0] - was[0]; p.view.y += now[1] - was[1]; draw(p); }
      p.pointers.set(e.pointerId, now);
    });
    // the page keeps scrolling under the wheel until a panel has been chosen
    c.addEventListener("wheel", (e) => {
      if (document.activeElement !== c && !e.ctrlKey) return;
      e.preventDefault();
      zoom(p, Math.exp(-e.deltaY / 300), ...at(e));
    }, { passive: false });
    c.addEventListener("dblclick", () => { p.view = { x: 0, y: 0, zoom: 1 }; draw(p); });
    c.addEventListener("blur", () => mark(p, -1));
    c.addEventListener("keydown", (e) => {
      const { width, height } = c.getBoundingClientRect(), step = 40;
      const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
      if (moves[e.key] && p.view.zoom > 1) { p.view.x += moves[e.key][0]; p.view.y += moves[e.key][1]; draw(p); }
      else if (e.key === "+" || e.key === "=") zoom(p, 1.4, width / 2, height / 2);
      else if (e.key === "-") zoom(p, 1 / 1.4, width / 2, height / 2);
      else if (e.key === "0") { p.view = { x: 0, y: 0, zoom: 1 }; draw(p); }
      else if (e.key === ".") mark(p, (marked + 1) % n);
      else if (e.key === ",") mark(p, (marked + n - (marked < 0 ? 0 : 1)) % n);
      else if (e.key === "Escape") mark(p, -1);
      else return;
      e.preventDefault();
    });
  }

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  drawAll();
}
