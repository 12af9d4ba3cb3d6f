// Keeps a page fresh: fetches it again and takes over what has changed. The server alone decides what
// the page says; only times are put into the reader's own zone here.

/** The page is English, so its times are, whatever the browser speaks; where it speaks English, as it is spoken there. */
const english = navigator.languages.find((language) => /^en\b/i.test(language)) ?? "en";
const format = (options) => new Intl.DateTimeFormat(english, { numberingSystem: "latn", ...options });
const clock = format({ timeStyle: "medium" });
const calendar = format({ dateStyle: "medium", timeStyle: "medium" });
const minute = format({ timeStyle: "short" });
const dated = format({ month: "short", day: "numeric", hour: "numeric", minute: "2-digit" });

/** How far this machine's clock is from the server's. */
let ahead = 0;

/** What the server's clock says. */
export const present = () => Date.now() - ahead;

const today = (moment) => new Date().toDateString() === moment.toDateString();
const spaced = (text) => text.replace(/\u202f/g, " ");
const spell = (moment) => spaced((today(moment) ? clock : calendar).format(moment));
const spellMinute = (moment) => spaced((today(moment) ? minute : dated).format(moment));

/** "7:00 and 7:05 PM": what both have in common is said once. */
function spellBetween(times) {
  const [first, last] = times.map((time) => new Date(time.dateTime));
  const [half, other] = [first, last].map((at) => minute.formatToParts(at).find(({ type }) => type === "dayPeriod")?.value);
  const short = today(first) && today(last) && half && half === other;
  write(times[0], short ? spellMinute(first).replace(half, "").trim() : spellMinute(first));
  write(times[1], spellMinute(last));
}

const UNITS = [[7_200_000, "hour", 3_600_000], [120_000, "minute", 60_000], [0, "second", 1_000]];
/** From half an hour on, single minutes would promise too much: the server tells moments as coarsely. */
const HALF_AN_HOUR = 1_800_000, FIVE_MINUTES = 300_000;

/** "in 5 to 9 seconds": what is left until an arrival. */
function left(from, to) {
  const [near, far] = [from, to].map((at) => at - present());
  const [, unit, size] = UNITS.find(([above]) => far > above) ?? UNITS.at(-1);
  let [least, most] = [near, far].map((time) => Math.max(0, Math.ceil(time / size)));
  if (unit === "minute" && near > HALF_AN_HOUR) {
    [least, most] = [Math.floor(near / FIVE_MINUTES), Math.ceil(far / FIVE_MINUTES)].map((steps) => 5 * steps);
  }
  if (most === 0) return "any moment now";
  const words = least === most ? `${most} ${unit}` : `${least} to ${most} ${unit}`;
  return `in ${words}${most === 1 ? "" : "s"}`;
}

/** Puts what only a script can know into a document: the reader's times, and what is left. */
export function dress(page) {
  for (const time of page.querySelectorAll("time[datetime]")) {
    const moment = new Date(time.dateTime);
    if (!time.closest(".between")) write(time, time.className === "minute" ? spellMinute(moment) : spell(moment));
  }
  for (const between of page.querySelectorAll(".between")) spellBetween([...between.querySelectorAll("time")]);
  for (const span of page.querySelectorAll("[data-from]")) {
    write(span, left(Number(span.dataset.from), Number(span.dataset.to)));
  }
}

function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** The id of an element; not `node.id`, which a form's field of that name would hide. */
const idOf = (node) => node.getAttribute?.("id") ?? "";

/** Makes `old` like `fresh` and touches nothing that is the same already: focus and selection stay. */
function take(old, fresh) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  for (const { name } of [...old.attributes]) {
    // What the reader has opened stays open.
    if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  }
  let at = old.firstChild;
  for (const child of [...fresh.childNodes]) {
    const known = idOf(child) && [...old.children].find((other) => idOf(other) === idOf(child));
    while (known && at && at !== known && !(idOf(at) && fresh.querySelector(`#${CSS.escape(idOf(at))}`))) {
      const gone = at;
      at = at.nextSibling;
      gone.remove();
    }
    if (at && at.nodeName === child.nodeName && idOf(at) === idOf(child)) {
      take(at, child);
      at = at.nextSibling;
    } else {
      old.insertBefore(known || child, at);
      if (known) take(known, child);
    }
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

/** Fetches this page again: "fresh"; "gone" if it is not there any more; "away" if it did not come. */
export async function refresh() {
  try {
    const signal = AbortSignal.timeout(5_000);
    const answer = await fetch(location.href, { cache: "no-store", signal });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const [content, fresh] = [document, page].map((page) => page.getElementById("content"));
    // The session is over: the page says so itself.
    if (!fresh && answer.status === 401) location.reload();
    if (!fresh) return answer.status === 404 ? "gone" : "away";
    dress(page);
    take(content, fresh);
    document.title = page.title;
    const [icon, now] = [document, page].map((page) => page.getElementById("icon"));
    if (icon.href !== now.href) icon.href = now.href;
    return "fresh";
  } catch {
    return "away";
  }
}

/** Shows whether the page is live. */
export function mark(state, words) {
  const mark = document.getElementById("mark");
  mark.hidden = !words;
  mark.className = state;
  write(mark, words);
}

const now = Number(document.getElementById("content").dataset.now);
if (now) ahead = Date.now() - now;
dress(document);
