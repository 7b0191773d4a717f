// Usage: node clients-udp.mjs PROXYPORT HOST PORT: echoes a datagram through npm's "socks" and prints it.
import { createSocket } from "node:dgram";
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const { SocksClient } = require("socks");
const [proxyPort, host, port] = process.argv.slice(2);
const client = new SocksClient({
  proxy: { host: "127.0.0.1", port: Number(proxyPort), type: 5 },
  command: "associate",
  destination: { host: "0.0.0.0", port: 0 },
});
client.on("error", (error) => {
  console.error(error);
  process.exit(1);
});
client.on("established", ({ socket, remoteHost: relay }) => {
  const udp = createSocket("udp4");
  udp.on("message", (message) => {
    const frame = SocksClient.parseUDPFrame(message);
    process.stdout.write(`${frame.remoteHost.host}:${frame.remoteHost.port} ${frame.data}`);
    udp.close();
    // end() would only half-close, and the association outlives that until it has been idle.
    socket.destroy();
  });
  const data = Buffer.from("hello from node\n");
  const frame = SocksClient.createUDPFrame({ remoteHost: { host, port: Number(port) }, data });
  udp.send(frame, relay.port, relay.host);
});
client.connect();
