// A chat bot for Amazon Connect in one file of Node, without a dependency: the other end of attachd's webhook.
//
// attachd posts each new chat here as a signed CloudEvent that carries a participant token. This program takes the chat or
// refuses it at once, connects as that participant before `connect_by`, talks, and leaves. To make it yours, replace `reply`.
// Tokens are bearer credentials: they live in memory only, and nothing here ever logs one.

import { createHmac, randomUUID, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";

const { values: options } = parseArgs({
  options: {
    listen: { type: "string", default: "127.0.0.1:8082" },
    "max-chats": { type: "string", default: "50" },
  },
});
const MAX_CHATS = Number(options["max-chats"]);
const SECRETS = (process.env.BOT_WEBHOOK_SECRET ?? "").split(/\s+/).filter(Boolean); // several while one is rotated
const TOLERANCE_SECONDS = 300;
const READS_PER_SECOND = 7; // GetTranscript's quota is 8 for the whole instance, however many chats there are

// ── the brain ── the answer to `text`, or null to say goodbye and leave; `memory` lasts one chat

function reply(text, memory) {
  const words = text.toLowerCase();
  if (/\b(bye|agent)\b/.test(words)) return null;
  memory.count = (memory.count ?? 0) + 1;
  const number = words.match(/\d{4,}/)?.[0];
  return number ? `Order ${number} leaves today.` : `You said (${memory.count}): ${text}`;
}

// ── Standard Webhooks ── HMAC-SHA256 over "id.timestamp.body"; any of our secrets, any of its signatures

function isSigned(headers, body) {
  const { "webhook-id": id, "webhook-timestamp": at, "webhook-signature": signatures } = headers;
  if (!id || !/^\d+$/.test(at ?? "") || !signatures) return false;
  if (Math.abs(Date.now() / 1000 - Number(at)) > TOLERANCE_SECONDS) return false;
  const given = signatures.split(" ").map((signature) => Buffer.from(signature));
  return SECRETS.some((secret) => {
    const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
    const mac = createHmac("sha256", key).update(`${id}.${at}.`).update(body).digest("base64");
    const ours = Buffer.from(`v1,${mac}`);
    return given.some((theirs) => theirs.length === ours.length && timingSafeEqual(theirs, ours));
  });
}

// ── the Participant Service ── plain HTTPS; the token is the credential, so that no AWS SDK is needed

class Refused extends Error {}

async function call(chat, path, bearer, body) {
  const endpoint =
    process.env.AWS_ENDPOINT_URL_CONNECTPARTICIPANT ?? `https://participant.connect.${chat.region}.amazonaws.com`;
  for (let attempt = 1; ; attempt += 1) {
    let status = 0;
    try {
      const answer = await fetch(`${endpoint}${path}`, {
        method: "POST",
        headers: { "Content-Type": "application/json", "X-Amz-Bearer": bearer },
        body: JSON.stringify(body),
        redirect: "error", // a bearer token goes nowhere else
        signal: AbortSignal.timeout(5000),
      });
      status = answer.status;
      if (answer.ok) return await answer.json();
      await answer.body?.cancel();
    } catch {} // no answer: as good as a 500
    if ((status !== 0 && status !== 429 && status < 500) || attempt === 5) {
      throw new Refused(`${path} answered ${status || "nothing"}`);
    }
    await sleep(Math.random() * 200 * 2 ** attempt);
  }
}

// ── one chat ──

const chats = new Map(); // contact id → chat
const taken = new Set(); // webhook-ids; outlives the chats, since a hand-off may be repeated late
let draining = false;

async function hold(chat) {
  let why = "left";
  try {
    const { ConnectionCredentials: made } = await call(chat, "/participant/connection", chat.token, {
      Type: ["CONNECTION_CREDENTIALS"],
      ConnectParticipant: true,
    });
    const ask = (path, body) => call(chat, path, made.ConnectionToken, body);
    try {
      await converse(chat, ask);
    } finally {
      // Leaving sends the contact flow down its "Bot participant disconnected" branch.
      await ask("/participant/disconnect", { ClientToken: randomUUID() });
    }
  } catch (error) {
    why = error instanceof Refused ? error.message : error.name; // never the text of anything else
  } finally {
    chats.delete(chat.contactId);
    console.log(JSON.stringify({ event: "chat.closed", contact: chat.contactId, why }));
  }
}

async function converse(chat, ask) {
  const say = (text) =>
    ask("/participant/message", { ContentType: "text/plain", Content: text.slice(0, 1024), ClientToken: randomUUID() });
  const seen = new Set();
  await say(`Hello, I am ${chat.bot}, and I run on Node.`);
  while (!chat.over) {
    const { Transcript: items } = await ask("/participant/transcript", { MaxResults: 100, SortOrder: "ASCENDING" });
    for (const item of items) {
      if (seen.has(item.Id) || item.RelatedContactId) continue; // the latter: an earlier session's
      seen.add(item.Id);
      if (isEndedBy(item, chat)) return;
      if (item.Type !== "MESSAGE" || item.ParticipantRole !== "CUSTOMER") continue; // never ourselves
      const answer = reply(item.Content, chat.memory);
      await say(answer ?? "Goodbye!");
      if (answer === null) return;
    }
    await Promise.race([chat.ending, sleep(Math.max(500, (1000 * chats.size) / READS_PER_SECOND))]);
  }
}

function isEndedBy(item, chat) {
  const event = item.ContentType ?? "";
  const gone = item.ParticipantRole === "CUSTOMER" || item.ParticipantId === chat.participantId;
  return event.endsWith(".chat.ended") || (event.endsWith(".participant.left") && gone);
}

// ── the webhook ── each status tells attachd what to do next

function answer(headers, body) {
  if (!isSigned(headers, body)) return [401, "no signature here is by a secret I know"];
  const event = JSON.parse(body);
  if (event.type === "attachd.chat.ended.v1") chats.get(event.subject)?.end();
  if (event.type !== "attachd.chat.attached.v1") return [204]; // also to event types of the future
  return take(headers["webhook-id"], event.data);
}

function take(webhookId, { contact, bot, participant }) {
  const secondsLeft = (Date.parse(participant.connect_by) - Date.now()) / 1000;
  if (taken.has(webhookId)) return [409, "I have this chat already"];
  if (!(secondsLeft > 0)) return [422, "connect_by has passed, and the participant token with it"];
  if (draining || chats.size >= MAX_CHATS) return [503, "no room", { "Retry-After": "5" }];
  const chat = {
    contactId: contact.id,
    region: contact.instance_arn.split(":")[3],
    participantId: participant.id,
    token: participant.token,
    bot: bot.display_name,
    memory: {},
    over: false,
  };
  chat.ending = new Promise((resolve) => {
    chat.end = () => {
      chat.over = true;
      resolve();
    };
  });
  taken.add(webhookId);
  if (taken.size > 10_000) taken.delete(taken.values().next().value);
  chats.set(chat.contactId, chat);
  setImmediate(hold, chat); // answer first, connect next
  return [202, "", { "Attachd-Chats": String(chats.size) }];
}

const server = createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  let [status, text, headers] = [405, "POST hand-offs here", {}];
  if (request.method === "POST") {
    try {
      [status, text, headers] = answer(request.headers, Buffer.concat(chunks));
    } catch {
      [status, text] = [422, "this hand-off lacks what a bot needs"];
    }
  }
  response.writeHead(status, { "Content-Type": "text/plain", ...headers }).end(text);
});

if (SECRETS.length === 0) {
  console.error("set BOT_WEBHOOK_SECRET to the whsec_… secret that attachd signs with");
  process.exit(2);
}
const colon = options.listen.lastIndexOf(":");
server.listen(Number(options.listen.slice(colon + 1)), options.listen.slice(0, colon), () => {
  const { address, port } = server.address();
  console.log(`listening on http://${address}:${port}/attach`);
});
for (const signal of ["SIGTERM", "SIGINT"]) {
  process.once(signal, async () => {
    draining = true;
    for (const chat of chats.values()) chat.end();
    while (chats.size > 0) await sleep(50);
    server.close();
    server.closeAllConnections();
  });
}
