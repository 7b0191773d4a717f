// The table of sessions: the fastest ones, and those that have ended in the last minute.

import { byId, bytes, count, made, rate, say, seconds } from "./words.js";

const LIVE = ["id", "client", "user", "command", "destination", "rule", "via", "phase", "began", "sent", "received", "rate"];
const ENDED = ["id", "client", "user", "command", "destination", "rule", "via", "end", "time", "sent", "received", "age"];

const COLUMNS = [
  { key: "user", name: "User" },
  { key: "client", name: "Client" },
  { key: "command", name: "Command" },
  { key: "destination", name: "Destination" },
  { key: "rule", name: "Rule" },
  { key: "via", name: "Way out" },
  { key: "state", name: "State" },
  { key: "age", name: "Age", said: seconds },
  { key: "sent", name: "Sent", said: bytes },
  { key: "received", name: "Received", said: bytes },
  { key: "rate", name: "Rate", said: rate },
  { key: "id", name: "Id" },
];
const MOST_SHOWN = 600;

export class Sessions {
  constructor() {
    this.table = byId("list");
    this.body = this.table.tBodies[0];
    this.rows = new Map();
    this.live = { live: 0, rows: [] };
    this.ended = [];
    this.sort = { key: "rate", down: true };
    this.paused = false;
    this.#head();
    this.filter = byId("filter");
    this.filter.addEventListener("input", () => this.draw());
    this.withEnded = byId("with-ended");
    this.withEnded.addEventListener("change", () => this.draw());
    byId("pause").addEventListener("click", () => this.pause(!this.paused));
  }

  pause(paused) {
    this.paused = paused;
    byId("pause").setAttribute("aria-pressed", String(paused));
    say(byId("pause"), paused ? "Paused" : "Pause");
    if (!paused && this.waiting) this.take(...this.waiting);
  }

  #head() {
    const row = this.table.tHead.insertRow();
    for (const column of COLUMNS) {
      const cell = made("th", "", column.said ? "number" : "");
      cell.scope = "col";
      const button = made("button", column.name);
      button.type = "button";
      button.addEventListener("click", () => {
        const down = this.sort.key === column.key ? !this.sort.down : Boolean(column.said);
        this.sort = { key: column.key, down };
        this.draw();
      });
      cell.append(button);
      row.append(cell);
      column.head = cell;
    }
  }

  /** Sessions of the server, at a time of its clock. */
  take(live, ended, now) {
    this.waiting = [live, ended, now];
    if (this.paused) return;
    this.total = live;
    const alive = live.rows.map(([, ...row]) => {
      const session = Object.fromEntries(LIVE.map((key, place) => [key, row[place]]));
      return { ...session, state: session.phase, age: Math.max(0, now - session.began) };
    });
    const over = ended.map(([, ...row]) => {
      const session = Object.fromEntries(ENDED.map((key, place) => [key, row[place]]));
      return { ...session, over: true, state: `ended: ${session.end}`, rate: null };
    }).filter((session) => now - session.time < 60);
    const gone = new Set(over.map((session) => session.id));
    this.all = [...alive.filter((session) => !gone.has(session.id)), ...over];
    this.draw();
  }

  draw() {
    const words = this.filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const { key, down } = this.sort;
    const chosen = (this.all ?? []).filter((session) =>
      (this.withEnded.checked || !session.over) && words.every((word) => COLUMNS.some((column) => !column.said && String(session[column.key] ?? "").toLowerCase().includes(word))));
    chosen.sort((one, other) => this.#compare(one, other, key, down));
    for (const column of COLUMNS) {
      if (column.key === key) column.head.setAttribute("aria-sort", down ? "descending" : "ascending");
      else column.head.removeAttribute("aria-sort");
    }
    this.#show(chosen.slice(0, MOST_SHOWN));
    this.#tell(chosen);
  }

  #compare(one, other, key, down) {
    if (!one.over !== !other.over) return one.over ? 1 : -1;
    const [mine, theirs] = [one[key], other[key]];
    const none = (mine ?? null) === null;
    if (none !== ((theirs ?? null) === null)) return none ? 1 : -1;
    let order = none ? 0 : typeof mine === "number" ? mine - theirs : String(mine).localeCompare(String(theirs), "en", { numeric: true });
    if (down) order = -order;
    if (order) return order;
    return one.sent + one.received !== other.sent + other.received
      ? other.sent + other.received - one.sent - one.received
      : one.id.localeCompare(other.id, "en", { numeric: true });
  }

  #show(chosen) {
    const there = new Map();
    let place = this.body.firstElementChild;
    for (const session of chosen) {
      const row = this.rows.get(session.id) ?? this.#row();
      there.set(session.id, row);
      row.className = session.over ? "ended" : "";
      COLUMNS.forEach((column, number) => {
        const value = session[column.key];
        const cell = row.cells[number];
        say(cell, column.said ? column.said(value) : (value ?? "–"));
        if (!column.said && cell.title !== String(value ?? "")) cell.title = value ?? "";
      });
      if (row === place) place = place.nextElementSibling;
      else this.body.insertBefore(row, place);
    }
    for (const [id, row] of this.rows) if (!there.has(id)) row.remove();
    this.rows = there;
  }

  #row() {
    const row = made("tr");
    for (const column of COLUMNS) row.append(made("td", "", column.said ? "number" : ""));
    return row;
  }

  #tell(chosen) {
    const alive = chosen.filter((session) => !session.over).length;
    const total = this.total?.live ?? 0;
    const known = this.total?.rows.length ?? 0;
    const of = known < total ? `of the ${count(known)} fastest of ${count(total)}` : `of ${count(total)}`;
    say(byId("shown"), alive === total ? count(total) : `${count(alive)} ${of}`);
  }
}
