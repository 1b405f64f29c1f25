// The customer's side of a chat, held by amazon-connect-chatjs as a page in a browser would.
//
// What the page is told is written to stdout, what it does is read from stdin: one JSON object a line, both ways.
// usage: customer.js ENDPOINT REGION, and the answer of StartChatContact as the first line.
"use strict";

const { createInterface } = require("node:readline");
const WebSocket = require("ws");

// What chatjs takes from a browser.
globalThis.window = globalThis.self = globalThis;
globalThis.WebSocket = WebSocket;
Object.defineProperty(globalThis, "navigator", { value: { onLine: true, userAgent: "test" }, configurable: true });

require("amazon-connect-chatjs");
const { ChatSession } = globalThis.connect;

const [endpoint, region] = process.argv.slice(2);
const tell = (event, data) => process.stdout.write(`${JSON.stringify({ event, data })}\n`);

ChatSession.setGlobalConfig({ endpoint, region });

function enter(chat) {
  const session = ChatSession.create({
    chatDetails: {
      contactId: chat.ContactId,
      participantId: chat.ParticipantId,
      participantToken: chat.ParticipantToken,
    },
    options: { region },
    type: "CUSTOMER",
    disableCSM: true, // would fetch a script of AWS's
  });
  session.onMessage(({ data }) => tell("message", data));
  session.onTyping(({ data }) => tell("typing", data));
  session.onReadReceipt(({ data }) => tell("read", data));
  session.onDeepHeartbeatSuccess(() => tell("heartbeat"));
  session.onDeepHeartbeatFailure(({ data }) => tell("heartbeat failed", data));
  session.onEnded(() => tell("ended"));
  session.connect().then(() => tell("connected"), (error) => tell("failed", error));
  return session;
}

const deeds = {
  say: (session, text) => session.sendMessage({ contentType: "text/plain", message: text }),
  type: (session) => session.sendEvent({ contentType: "application/vnd.amazonaws.connect.event.typing" }),
  transcript: (session) => session.getTranscript({ maxResults: 100 }),
  leave: (session) => session.disconnectParticipant(),
};

let session;
createInterface({ input: process.stdin })
  .on("line", (line) => {
    const asked = JSON.parse(line);
    if (session === undefined) {
      session = enter(asked);
      return;
    }
    const { deed, text } = asked;
    deeds[deed](session, text).then(
      (answer) => tell(`${deed} done`, answer.data),
      (error) => tell("failed", error),
    );
  })
  .on("close", () => process.exit(0)); // chatjs's timers would keep it alive for ever
