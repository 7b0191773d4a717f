// How the page says numbers, and how it makes elements. Texts come from clients: they are only ever text.

const SIZES = ["B", "kB", "MB", "GB", "TB", "PB"];

/** Bytes as people read them: 1.2 MB. */
export function bytes(value) {
  if (value === null || value === undefined) return "–";
  let size = 0;
  while (value >= 999.5 && size < SIZES.length - 1) { value /= 1000; size += 1; }
  return `${size && value < 99.95 ? value.toFixed(1) : Math.round(value)} ${SIZES[size]}`;
}

export const rate = (value) => (value === null || value === undefined ? "–" : `${bytes(value)}/s`);

export const count = (value) => (value === null || value === undefined ? "–" : Math.round(value).toLocaleString("en"));

export const perSecond = (value) =>
  value === null || value === undefined ? "–" : `${value < 10 && value % 1 ? value.toFixed(1) : count(value)}/s`;

/** Seconds as people read them: 3 h 5 min. */
export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 10) return `${Math.max(0, value).toFixed(1)} s`;
  if (value < 60) return `${Math.floor(value)} s`;
  const minutes = Math.floor(value / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(value % 60)} s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

export const clock = (time) => new Date(time * 1000).toLocaleTimeString("en-GB");

/** An element with a text. */
export function made(tag, text = "", kind = "") {
  const element = document.createElement(tag);
  if (text !== "") element.textContent = text;
  if (kind) element.className = kind;
  return element;
}

/** Set a text only where it differs, so that nothing is drawn for nothing. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export const byId = (id) => document.getElementById(id);
