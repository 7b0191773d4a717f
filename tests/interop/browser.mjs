// Chromium for the tests of the status page. Each line of the input is a piece of a program, which is run with
// what is here; each line of the output is what came of it.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf-8");
const browser = await chromium.launch({
  executablePath: process.argv[2],
  args: ["--no-sandbox", "--host-resolver-rules=MAP *.example 127.0.0.1"],
});
const complaints = [];

/** A page, of which everything that goes wrong is noted. */
async function open(url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(20000);
  page.on("console", (message) => {
    // Other tests make network interfaces, and Chromium begins anew whatever is under way.
    if (message.type() === "error" && !message.text().includes("ERR_NETWORK_CHANGED")) complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("dialog", (dialog) => { complaints.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
  for (let tries = 1; ; tries += 1) {
    try {
      await page.goto(url);
      return page;
    } catch (error) {
      if (tries === 3 || !String(error).includes("ERR_NETWORK_CHANGED")) throw error;
    }
  }
}

/** What axe-core finds that is serious. */
async function faults(page) {
  const client = await page.context().newCDPSession(page);
  // The page lets nothing be run as text; a debugger may.
  await client.send("Runtime.evaluate", { expression: axe });
  const found = await page.evaluate(() => axe.run());
  return found.violations.filter((each) => ["serious", "critical"].includes(each.impact))
    .map((each) => `${each.id}: ${each.nodes.map((node) => node.html).join(" ")}`);
}

/** What a page of another origin tries against the server at a URL: a list of what it has got. */
const tries = async (at) => {
  const got = [];
  const attempt = async (name, made) => {
    try { const result = await made(); if (result) got.push(`${name}: ${result}`); } catch { /* as it should be */ }
  };
  const event = (target, good, bad) => new Promise((done) => {
    target.addEventListener(good, () => done(good));
    target.addEventListener(bad, () => done(""));
    setTimeout(() => done(""), 300);
  });
  const element = (tag, properties) => {
    const made = Object.assign(document.createElement(tag), properties);
    document.body.append(made);
    return event(made, "load", "error");
  };
  for (const path of ["", "v1/status", "v1/sessions", "metrics"]) {
    await attempt(`fetch ${path}`, async () => (await fetch(at + path)).text());
    await attempt(`opaque ${path}`, async () => (await fetch(at + path, { mode: "no-cors" })).text());
  }
  const json = { "Content-Type": "application/json" };
  for (const [path, body] of [["v1/sessions/kill", '{"filter": {"older": 0}}'], ["v1/drain", "{}"]]) {
    await attempt("post", async () => (await fetch(at + path, { method: "POST", body })).status);
    await attempt("blind post", async () => (await fetch(at + path, { method: "POST", body, mode: "no-cors" })).status);
    await attempt("JSON", async () => (await fetch(at + path, { method: "POST", body, headers: json })).status);
    const form = document.createElement("form");
    Object.assign(form, { action: at + path, method: "post", enctype: "text/plain", target: "frame" });
    const field = Object.assign(document.createElement("input"), { name: body.slice(0, -1), value: '"}' });
    form.append(field);
    const frame = Object.assign(document.createElement("iframe"), { name: "frame" });
    document.body.append(frame, form);
    form.submit();
    await event(frame, "load", "error");
    await attempt("form", () => frame.contentDocument?.body.textContent);
  }
  await attempt("img", () => element("img", { src: `${at}page/icon.svg` }));
  await attempt("script", () => element("script", { src: `${at}page/page.js` }));
  await attempt("style", () => element("link", { rel: "stylesheet", href: `${at}page/page.css` }));
  await attempt("socket", () => event(new WebSocket(at.replace("http", "ws") + "v1/events"), "open", "error"));
  await attempt("stream", () => event(new EventSource(`${at}v1/page`), "open", "error"));
  await attempt("frame", async () => {
    const frame = Object.assign(document.createElement("iframe"), { src: at });
    document.body.append(frame);
    await event(frame, "load", "error");
    return frame.contentDocument?.title;
  });
  return got;
};

const AsyncFunction = (async () => {}).constructor;
const kept = {};
for await (const line of createInterface({ input: process.stdin })) {
  const { code, given } = JSON.parse(line);
  let told;
  try {
    const run = new AsyncFunction("open", "faults", "complaints", "kept", "given", "tries", code);
    told = { result: (await run(open, faults, complaints, kept, given, tries)) ?? null };
  } catch (error) {
    told = { error: String(error.stack ?? error) };
  }
  process.stdout.write(`${JSON.stringify(told)}\n`);
}
await browser.close();
