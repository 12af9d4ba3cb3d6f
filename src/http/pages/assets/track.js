// Follows one order: each event of its stream is a signal, upon which the page is fetched again.
import { dress, mark, present, refresh } from "./page.js";

const content = document.getElementById("content");
const announcement = document.getElementById("announcement");
/** Whether nothing more will come, unless the end is taken back. */
const over = () => "final" in content.dataset;
/** Until when that may be. */
const undo = () => Number(content.dataset.undo ?? 0);
const pause = (millis) => new Promise((done) => setTimeout(done, millis));

/** How long between two looks at an order that is over. */
const RARELY = 15_000;
let busy = false, again = false, gone = false, asked = over() ? Date.now() + RARELY : 0;
/** Whether there is nothing to follow. */
const ended = () => gone || over();

/** Brings the page up to date, however often and whenever it is asked to. */
async function renew() {
  if (busy) { again = true; return; }
  busy = true;
  do {
    again = false;
    const was = { ...content.dataset, over: over() };
    const answer = await refresh();
    if (answer === "gone") {
      gone = true;
      mark("away", "This order is not there any more");
    } else if (answer === "away") {
      if (over()) break;
      await pause(1_000);
      again = true;
    } else if (content.dataset.news !== was.news) {
      const said = [...content.querySelectorAll("[data-said]")].map((node) => node.textContent);
      announcement.textContent = said.join(" ");
      document.body.classList.toggle("arrived", "delivered" in content.dataset);
    }
    if (was.over && !ended()) follow();
    if (open && !ended()) live();
  } while (again && !ended());
  busy = false;
  if (over() && !gone) {
    asked = Date.now() + RARELY;
    mark("", "");
  }
}

/** How long a stream may be silent: two of its beats and a bit. */
const SILENCE = 35_000;
/** Most streams of one browser: it has six connections to a server for all its pages, and others want to load. */
const STREAMS = 4;
/** So many refusals mean that there is no place for this page, which then asks for one every 30 to 60 s. */
const REFUSALS = 2;
let stream, silence, soon, refused = 0, open = false;

/** Says that the page is live; of an order that is late, not as if all were well. */
function live() {
  open = true;
  if (content.dataset.late) mark("late", "Live, running late");
  else mark("live", "Live");
}

/** Where the pages of this browser tell each other that they open a stream, and who did after this one. */
const streams = new BroadcastChannel("streams");
const name = Math.random();
const later = new Set();

streams.onmessage = ({ data }) => {
  later.add(data);
  if (!stream || later.size < STREAMS) return;
  rest();
  mark("", "Updates now and then");
};

/** Gives the connection back. */
function rest() {
  clearTimeout(silence);
  stream?.close();
  stream = undefined;
  open = false;
}

/** Opens the stream, for as long as somebody can see the page. */
function follow() {
  clearTimeout(soon);
  rest();
  if (ended() || document.hidden) return;
  later.clear();
  streams.postMessage(name);
  stream = new EventSource(`/track/${content.dataset.order}/events?after=${content.dataset.seq}`);
  // A browser does not notice a network that is gone without a word.
  const hear = () => { clearTimeout(silence); silence = setTimeout(lose, SILENCE); };
  stream.onopen = () => { refused = 0; hear(); live(); };
  stream.addEventListener("status", () => { hear(); renew(); });
  stream.addEventListener("beat", hear);
  stream.addEventListener("end", () => { rest(); renew(); });
  stream.onerror = () => {
    if (ended()) return;
    open = false;
    mark("away", "Reconnecting…");
    // A browser tries again by itself after a lost connection, but not after a refusal.
    if (stream.readyState === EventSource.CLOSED) {
      rest();
      renew();
      refused += 1;
      const full = refused >= REFUSALS;
      if (full) mark("", "Updates now and then");
      soon = setTimeout(follow, full ? 30_000 + 30_000 * Math.random() : 500);
    }
  };
  hear();
}

function lose() {
  if (!ended()) mark("away", "Reconnecting…");
  follow();
}

/** Asks now and then: without a stream, when a promised moment has passed, until it is made good, and as long as an end may
 * be taken back. */
function doubt() {
  const promise = content.querySelector("[data-until]");
  const late = promise && present() > Number(promise.dataset.until);
  if (gone || Date.now() < asked || (over() ? present() > undo() : stream && !late)) return;
  asked = Date.now() + 10_000 + 5_000 * Math.random();
  renew();
}

setInterval(() => { dress(document); doubt(); }, 1_000);
// Who comes back to a page that rests wants to see it live.
addEventListener("focus", () => { if (!stream) follow(); });
document.addEventListener("visibilitychange", follow);
follow();
