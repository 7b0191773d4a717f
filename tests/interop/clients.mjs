// Usage: node clients.mjs PROXYPORT SOCKSTYPE HOST PORT MESSAGE [USER [PASSWORD]]
// Says MESSAGE through npm's "socks", and prints what is answered.
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const { SocksClient } = require("socks");
const [proxyPort, type, host, port, message, userId, password] = process.argv.slice(2);
const { socket } = await SocksClient.createConnection({
  proxy: { host: "127.0.0.1", port: Number(proxyPort), type: Number(type), userId, password },
  command: "connect",
  destination: { host, port: Number(port) },
});
socket.on("data", (data) => {
  process.stdout.write(data);
  socket.end();
});
socket.write(message);
