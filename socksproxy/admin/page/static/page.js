// The status page: a stream of sections from the server, and where each of them is shown.

import { Plot, Points } from "./plot.js";
import { Sessions } from "./sessions.js";
import { byId, bytes, count, made, perSecond, rate, say, seconds } from "./words.js";

const points = { seconds: new Points("seconds"), minutes: new Points("minutes") };
const plots = [
  new Plot("throughput", [
    { key: "received", name: "received", scale: "rate", said: rate },
    { key: "sent", name: "sent", scale: "rate", said: rate },
  ]),
  new Plot("load", [
    { key: "sessions", name: "sessions", scale: "count", said: count },
    { key: "refused", name: "refused", scale: "each", said: perSecond },
  ]),
];
const sessions = new Sessions();
const known = { sessions: null, ended: [], upstreams: null, pools: null };
let range = "seconds";
/** Seconds that the server's clock is ahead of this one. */
let ahead = 0;

// Tables of a few columns.

function fill(id, heads, rows, none) {
  const table = byId(id);
  if (!table.tHead) {
    const line = table.createTHead().insertRow();
    for (const head of heads) {
      const cell = made("th", head.replace(/^#/, ""), head.startsWith("#") ? "number" : "");
      cell.scope = "col";
      line.append(cell);
    }
    table.createTBody();
  }
  const lines = rows.map((row) => {
    const line = made("tr");
    row.forEach((value, place) => {
      const cell = made("td", "", heads[place].startsWith("#") ? "number" : "");
      if (value instanceof Node) cell.append(value);
      else { cell.textContent = value ?? "–"; cell.title = value ?? ""; }
      line.append(cell);
    });
    return line;
  });
  if (!lines.length) {
    const line = made("tr");
    const cell = made("td", none, "none");
    cell.colSpan = heads.length;
    line.append(cell);
    lines.push(line);
  }
  table.tBodies[0].replaceChildren(...lines);
}

const KINDS = {
  good: ["running", "enabled", "up"],
  warn: ["draining", "starting", "reloading", "due", "on trial", "leaving"],
  bad: ["disabled", "down", "stopping", "dead", "waiting"],
};

function pill(word) {
  const kind = Object.keys(KINDS).find((each) => KINDS[each].includes(word)) ?? "";
  return made("span", word ?? "–", `pill ${kind}`);
}

function meter(now, most) {
  const element = made("meter", "", "meter");
  element.max = most || 1;
  element.high = element.max * 0.99;
  element.low = element.max * 0.8;
  element.optimum = 0;
  element.value = now;
  element.setAttribute("aria-label", `${now} of ${most}`);
  return element;
}

// What is done with each section.

const shown = {
  history(told) {
    points.seconds.replace(told.seconds);
    points.minutes.replace(told.minutes);
    byId("not-counted").hidden = told.counted;
    for (const plot of plots) plot.make(points[range]);
    now();
  },

  points(told) {
    for (const point of told) {
      points.seconds.add(point);
      points.minutes.addToMinute(point, points.seconds);
    }
    if (!told.length) return;
    byId("not-counted").hidden = true;
    for (const plot of plots) plot.update();
    now();
  },

  sessions(told) {
    known.sessions = told;
    say(byId("now-sessions"), count(told.live));
    const phases = Object.entries(told.phases).filter(([phase]) => phase !== "over");
    say(byId("now-phases"), phases.map(([phase, number]) => `${count(number)} ${phase}`).join(", ") || "\u00a0");
    draw();
  },

  ended(told) { known.ended = told; draw(); },

  busiest(told) {
    for (const [kind, rows] of Object.entries(told)) {
      fill(`top-${kind}`, [{ user: "User", destination: "Host", rule: "Rule", upstream: "Upstream" }[kind], "#Sessions", "#Rate", "#Moved"],
        rows.map(([name, number, moving, moved]) => [name, count(number), rate(moving), bytes(moved)]), "no sessions");
    }
  },

  status(told) {
    ahead = told.started + told.uptime - Date.now() / 1000;
    const state = byId("state");
    say(state, told.why && told.why !== told.state ? `${told.state}: ${told.why}` : told.state);
    state.className = pill(told.why ? "draining" : told.state).className;
    const { running, configured } = told.workers;
    const facts = [
      ["version", told.version],
      ["up", seconds(told.uptime)],
      ["workers", running === configured ? String(running) : `${running} of ${configured}`],
      ["generation", String(told.generation)],
      ["configuration", told.config.hash ? told.config.hash.slice(0, 12) : "no file"],
      ["loaded", new Date(told.config.loaded * 1000).toLocaleString("en-GB")],
    ];
    byId("facts").replaceChildren(...facts.map(([name, value]) => {
      const fact = made("div");
      fact.append(made("dt", name), made("dd", value));
      return fact;
    }));
    const notices = [];
    if (told.why) notices.push(made("p", `The server should get no new clients: ${told.why}.`));
    if (told.config.failed) notices.push(made("p", `The last reload has failed (${new Date(told.config.failed.time * 1000).toLocaleString("en-GB")}), the configuration before it is in force: ${told.config.failed.mistakes.join("; ")}`, "bad"));
    if (told.missing.length) notices.push(made("p", `Workers that do not answer: ${told.missing.join(", ")}.`, "bad"));
    byId("notices").replaceChildren(...notices);
    document.title = `${told.state === "running" ? "" : `${told.state} · `}socksproxy`;
  },

  workers(told) {
    fill("workers", ["#No.", "State", "#Process", "#Sessions", "#Up", "#CPU", "#Memory", "#Lag", "#Failures"],
      told.workers.map((row) => [String(row.number), pill(row.state), row.pid === null ? null : String(row.pid), count(row.sessions),
        seconds(row.uptime), seconds(row.cpu_seconds), bytes(row.resident_bytes),
        row.lag === null || row.lag === undefined ? null : `${(row.lag * 1000).toFixed(1)} ms`, String(row.failures)]), "no workers");
  },

  listeners(told) {
    fill("listeners", ["Name", "Address", "State"], told.listeners.map((row) => [row.name, row.address, pill(row.state)]), "none that the server knows of");
  },

  upstreams(told) { known.upstreams = told.upstreams; parts(); },

  pools(told) { known.pools = told.pools; parts(); },

  limits(told) {
    const rows = told.limits.flatMap((row) => {
      const each = Object.entries(row.now).filter(([kind]) => row.limits[kind]);
      const name = row.holder ? `${row.scope} ${row.holder}` : row.scope;
      if (!each.length) return row.full ? [[name, "quota", made("span", "used up", "pill bad"), null]] : [];
      return each.map(([kind, taken]) => [name, kind, meter(taken, row.limits[kind]), `${count(taken)} / ${count(row.limits[kind])}`]);
    });
    fill("limits", ["Whose", "What", "Taken", "#"], rows, "no limit is in use");
  },

  lockouts(told) {
    fill("lockouts", ["Address", "#Level", "#Time left"], told.lockouts.map((row) => [row.address, String(row.level), seconds(row.seconds)]), "none");
  },
};

function draw() {
  if (known.sessions) sessions.take(known.sessions, known.ended, Date.now() / 1000 + ahead);
}

function parts() {
  const rows = (known.upstreams ?? []).map((row) => [row.name, pill(row.state), row.address, count(row.sessions), count(row.total),
    `${count(row.own_failures)} / ${count(row.destination_failures)}`]);
  for (const pool of known.pools ?? []) {
    for (const member of pool.members) {
      const health = made("span");
      for (const [word, number] of Object.entries(member.health)) {
        const part = pill(word);
        if (Object.keys(member.health).length > 1) part.textContent = `${number} ${word}`;
        health.append(part, " ");
      }
      rows.push([`${pool.name} › ${member.name}`, health, `by ${pool.choose}`, null, null, null]);
    }
  }
  fill("upstreams", ["Name", "State", "Address", "#Sessions", "#Tries", "#Failed (own / behind)"], rows, "none: sessions leave directly");
}

function now() {
  const last = points.seconds.last();
  for (const key of ["sent", "received"]) {
    say(byId(`now-${key}`), rate(last[key]));
    say(byId(`peak-${key}`), `peak ${rate(points.seconds.most(key))}`);
  }
  for (const key of ["connections", "refused"]) {
    say(byId(`now-${key}`), perSecond(last[key]));
    say(byId(`peak-${key}`), `peak ${perSecond(points.seconds.most(key))}`);
  }
}

function choose(name) {
  range = name;
  byId("ten-minutes").setAttribute("aria-pressed", String(name === "seconds"));
  byId("day").setAttribute("aria-pressed", String(name === "minutes"));
  for (const plot of plots) plot.make(points[range]);
}

byId("ten-minutes").addEventListener("click", () => choose("seconds"));
byId("day").addEventListener("click", () => choose("minutes"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { for (const plot of plots) plot.make(points[range]); });

// Ages grow, and what has ended is shown for a minute, although nothing new comes.
setInterval(() => { if (stream) draw(); }, 5000);

// The stream. A hidden page gets nothing. A server that is gone is tried again, from a second on to ten.

let stream = null;
let again = null;
let wait = 1;

function link(words, kind) {
  say(byId("link"), words);
  byId("link").className = `pill ${kind}`;
}

function open() {
  close();
  stream = new EventSource("/v1/page");
  stream.addEventListener("open", () => { wait = 1; link("live", "good"); });
  stream.addEventListener("error", () => {
    close();
    link("no connection: trying again", "bad");
    again = setTimeout(open, wait * 1000);
    wait = Math.min(wait * 2, 10);
  });
  for (const [name, show] of Object.entries(shown)) stream.addEventListener(name, (event) => show(JSON.parse(event.data)));
}

function close() {
  clearTimeout(again);
  stream?.close();
  stream = null;
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) open();
  else { close(); link("paused while hidden", ""); }
});
open();
