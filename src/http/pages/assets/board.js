// Renews the board every second, unless it is paused or nobody can see it.
import { mark, refresh } from "./page.js";

const EVERY = 1_000;
const button = document.getElementById("pause");
const announcement = document.getElementById("announcement");
let paused = false, timer;

async function renew() {
  clearTimeout(timer);
  if (paused || document.hidden) return;
  const fresh = (await refresh()) === "fresh";
  if (paused) return;
  mark(fresh ? "live" : "away", fresh ? "Live" : "Reconnecting…");
  clearTimeout(timer);
  timer = setTimeout(renew, EVERY);
}

button.hidden = false;
button.addEventListener("click", () => {
  paused = !paused;
  button.setAttribute("aria-pressed", paused);
  announcement.textContent = paused ? "The board stands still." : "The board is live.";
  if (paused) mark("", "Paused");
  renew();
});
document.addEventListener("visibilitychange", renew);
mark("live", "Live");
timer = setTimeout(renew, EVERY);
