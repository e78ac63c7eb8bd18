// One end user on npm's `ws`, written from protocol-spec/13-client-subprotocols.md alone.
//
// node client.mjs <url> <json|bin>, the token as the first line of stdin, WS_HOME the folder `ws` is
// installed in. Prints one JSON value a line: {"ready": uid}, then {"data64": payload} for each
// message, at last {"closed": code}. Ends when stdin does.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const { WebSocket } = createRequire(`${process.env.WS_HOME}/`)("ws");
const [url, form] = process.argv.slice(2);
const tell = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);

const json = {
  login: (token) => JSON.stringify({ type: "login", token }),
  read(data, isBinary) {
    if (isBinary) throw new Error("waybill.json.v1 uses text messages [WS-1]");
    const message = JSON.parse(data.toString());
    if (message.type === "ready") return { ready: message.uid };
    if (message.type !== "message") return null;
    const text = "data" in message ? Buffer.from(message.data) : Buffer.from(message.data64, "base64");
    return { data64: text.toString("base64") };
  },
};

const bin = {
  login(token) {
    const text = Buffer.from(token);
    const message = Buffer.alloc(4 + text.length);
    message[0] = 0x01; // LOGIN
    message.writeUInt16LE(text.length, 2);
    text.copy(message, 4);
    return message;
  },
  read(data, isBinary) {
    if (!isBinary) throw new Error("waybill.bin.v1 uses binary messages [WS-1]");
    if (data[0] === 0x81) return { ready: data.readBigUInt64LE(8).toString() };
    if (data[0] !== 0x82) return null;
    let at = 24 + (data[1] & 1 ? 8 : 0);
    for (let label = 0; label < data[2]; label += 1) at += 1 + data[at];
    return { data64: data.subarray(at).toString("base64") };
  },
};

const speaks = { json, bin }[form];
const lines = createInterface({ input: process.stdin });
const token = await new Promise((resolve) => lines.once("line", resolve));
const socket = new WebSocket(url, `waybill.${form}.v1`);
socket.on("open", () => socket.send(speaks.login(token)));
socket.on("message", (data, isBinary) => {
  const told = speaks.read(data, isBinary);
  if (told) tell(told);
});
socket.on("close", (closed) => {
  tell({ closed });
  lines.close();
  process.stdin.destroy();
});
lines.on("close", () => socket.close(1000));
