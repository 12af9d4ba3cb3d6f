// Follows one order: each event of its stream is a bell, upon which the page is fetched again.
import { dress, mark, present, refresh } from "./page.js";

const content = document.getElementById("content");
const announcement = document.getElementById("announcement");
const arrived = () => content.dataset.status === "DELIVERED";
const pause = (millis) => new Promise((done) => setTimeout(done, millis));

let busy = false, again = false, ended = arrived();

/** Brings the page up to date, however often and whenever it is asked to. */
async function renew() {
  if (busy) { again = true; return; }
  busy = true;
  do {
    again = false;
    const before = content.dataset.status;
    const news = await refresh();
    if (news === "gone") {
      finish("away", "This order is not there any more");
    } else if (news === "away") {
      await pause(1_000);
      again = true;
    } else if (content.dataset.status !== before) {
      announcement.textContent = document.querySelector("h1").textContent;
      if (arrived()) document.body.classList.add("arrived");
    }
  } while (again && !ended);
  busy = false;
  if (arrived()) finish();
}

function finish(state = "", words = "") {
  ended = true;
  mark(state, words);
}

/** How long a stream may be silent: two of its beats and a bit. */
const SILENCE = 35_000;
let wait = 500, silence;

function follow() {
  if (ended) return;
  const stream = new EventSource(`/orders/${content.dataset.order}/events?after=${content.dataset.seq}`);
  const hear = () => { clearTimeout(silence); silence = setTimeout(dead, SILENCE); };
  // A browser does not notice a network that is gone without a word.
  const dead = () => {
    stream.close();
    if (ended) return;
    mark("away", "Reconnecting…");
    follow();
  };
  stream.onopen = () => { wait = 500; hear(); mark("live", "Live"); };
  stream.addEventListener("status", () => { hear(); renew(); });
  stream.addEventListener("beat", hear);
  stream.addEventListener("end", () => { clearTimeout(silence); stream.close(); renew(); });
  stream.onerror = () => {
    if (ended) return;
    mark("away", "Reconnecting…");
    // A browser tries again by itself after a lost connection, but not after a refusal.
    if (stream.readyState === EventSource.CLOSED) {
      clearTimeout(silence);
      renew();
      setTimeout(follow, wait);
      wait = Math.min(2 * wait, 5_000);
    }
  };
  hear();
}

let asked = 0;

/** Asks again when a promised moment has passed, and now and then until it is made good. */
function doubt() {
  const promise = content.querySelector("[data-to]");
  if (ended || !promise || document.hidden || present() <= Number(promise.dataset.to) || Date.now() < asked) return;
  asked = Date.now() + 10_000 + 5_000 * Math.random();
  renew();
}

setInterval(() => { dress(document); doubt(); }, 1_000);
follow();
