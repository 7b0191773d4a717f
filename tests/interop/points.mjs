// Points of the status page's plots, without a browser.

const { Points } = await import(process.argv[2]);
const KEYS = ["time", "sent", "received", "sessions", "connections", "refused"];
const columns = (times) =>
  Object.fromEntries(KEYS.map((key) => [key, times.map((time) => (key === "time" ? time : 1))]));

const points = new Points("seconds");
points.replace(columns([100, 101, 102]));
points.replace(columns([110, 111]));
points.add([111, 9, 9, 9, 9, 9]);
points.add([112, 2, 1, 1, 1, 1]);
const day = new Points("minutes");
for (const time of points.columns.time) day.addToMinute([time, 5, 1, time, 1, 1], points);
console.log(JSON.stringify([points.drawn(["sent"]), day.columns.time, day.columns.sent]));
