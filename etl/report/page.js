// Search, order and pages of the table of personas. Without it all rows are there, in one go.
"use strict";
(() => {
  const table = document.getElementById("table");
  if (!table) return;
  const SIZE = 50;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  // Without accents: who searches may have no such keys.
  const plain = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
  const texts = rows.map((row) => plain(row.textContent));
  const search = document.getElementById("search");
  const found = document.getElementById("found");
  const pager = document.getElementById("pager");
  const place = document.getElementById("place");
  const back = document.getElementById("back");
  const on = document.getElementById("on");
  const names = new Intl.Collator(undefined, { numeric: true });
  const grouped = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, "\u202f");
  let order = rows.map((_, index) => index);
  let matching = order;
  let page = 0;

  function show() {
    const pages = Math.max(Math.ceil(matching.length / SIZE), 1);
    page = Math.min(page, pages - 1);
    const shown = new Set(matching.slice(page * SIZE, (page + 1) * SIZE));
    rows.forEach((row, index) => (row.hidden = !shown.has(index)));
    pager.hidden = pages === 1;
    place.textContent = `Page ${page + 1} of ${pages}`;
    back.disabled = page === 0;
    on.disabled = page === pages - 1;
  }

  function find() {
    const words = plain(search.value).split(/\s+/).filter(Boolean);
    matching = order.filter((index) => words.every((word) => texts[index].includes(word)));
    page = 0;
    const all = grouped(rows.length);
    found.textContent = words.length ? `${grouped(matching.length)} of ${all} match` : `${all} in all`;
    show();
  }

  // What a cell is ordered by: its time, its number, or its text; what is empty comes last.
  function value(row, column) {
    const cell = row.cells[column];
    const time = column > 0 && cell.querySelector("time");
    if (time) return time.dateTime;
    const text = (column === 0 ? cell.querySelector("bdi") : cell).textContent.trim();
    if (text === "–") return null;
    return cell.classList.contains("n") ? Number(text.replace(/\D/g, "")) : text;
  }

  function sort(column, down) {
    const values = rows.map((row) => value(row, column));
    const compare = (a, b) => (typeof a === "number" ? a - b : names.compare(a, b));
    order = rows.map((_, index) => index).sort((i, j) => {
      const [a, b] = [values[i], values[j]];
      if (a === null || b === null) return (a === null) - (b === null) || i - j;
      return (down ? compare(b, a) : compare(a, b)) || i - j;
    });
    body.append(...order.map((index) => rows[index]));
    find();
  }

  table.classList.add("orders");
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      sort(column, down);
    });
  });

  // A link to a persona finds it on whatever page it is.
  function jump() {
    const index = rows.findIndex((row) => `#${row.id}` === location.hash);
    if (index < 0) return;
    search.value = "";
    find();
    page = Math.floor(order.indexOf(index) / SIZE);
    show();
    rows[index].scrollIntoView({ block: "center" });
  }

  search.addEventListener("input", find);
  back.addEventListener("click", () => { page -= 1; show(); });
  on.addEventListener("click", () => { page += 1; show(); });
  addEventListener("hashchange", jump);
  document.getElementById("controls").hidden = false;
  find();
  jump();
})();
