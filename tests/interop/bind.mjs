// Usage: node bind.mjs PROXYPORT SOCKSTYPE HOST PORT: BIND through npm's "socks".
// Prints where the peer is to connect, who came, and what it said; answers it.
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const { SocksClient } = require("socks");
const [proxyPort, type, host, port] = process.argv.slice(2);
const client = new SocksClient({
  proxy: { host: "127.0.0.1", port: Number(proxyPort), type: Number(type) },
  command: "bind",
  destination: { host, port: Number(port) },
});
client.on("error", (error) => {
  console.log("error", error.message);
  process.exit(1);
});
client.on("bound", ({ remoteHost }) => console.log("bound", remoteHost.host, remoteHost.port));
client.on("established", ({ socket, remoteHost }) => {
  console.log("established", remoteHost.host, remoteHost.port);
  socket.on("data", (data) => {
    console.log("said", data.toString());
    socket.end("and goodbye");
  });
  socket.resume();
});
client.connect();
