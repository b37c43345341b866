// Speaks with Uptime Kuma as its page in a browser does: each line of the input is an event with its arguments. The answer is a
// line {'answer': …} of the output; each heartbeat that the page is told of is a line {'beat': …}.
//
// node page.mjs FOLDER URL      FOLDER is an installed Uptime Kuma, whose client of socket.io is used.
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { join, resolve } from 'node:path';

const [folder, url] = process.argv.slice(2);
const { io } = createRequire(join(resolve(folder), 'server', 'server.js'))('socket.io-client');
// Whom the page trusts is not what is tested.
const socket = io(url, { transports: ['websocket'], rejectUnauthorized: false });
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

// Before it says so, it does not listen to what a page asks.
await new Promise((ready) => socket.once('loginRequired', ready));
socket.on('heartbeat', (beat) => say({ beat }));
const lines = createInterface({ input: process.stdin });
lines.on('line', (line) => socket.emit(...JSON.parse(line), (answer) => say({ answer })));
lines.on('close', () => process.exit(0));
