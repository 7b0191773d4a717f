// Usage: node clients.mjs PROXYPORT SOCKSTYPE HOST PORT: echoes a line through npm's "socks" and prints it.
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const { SocksClient } = require("socks");
const [proxyPort, type, host, port] = process.argv.slice(2);
const { socket } = await SocksClient.createConnection({
  proxy: { host: "127.0.0.1", port: Number(proxyPort), type: Number(type) },
  command: "connect",
  destination: { host, port: Number(port) },
});
socket.on("data", (data) => {
  process.stdout.write(data);
  socket.end();
});
socket.write("hello from node\n");
