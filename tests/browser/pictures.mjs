// Makes the screenshots in docs/images from a running service.
import { mkdir } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { Service, launch, open } from "./harness.mjs";

const folder = fileURLToPath(new URL("../../docs/images/", import.meta.url));
await mkdir(folder, { recursive: true });
const browser = await launch();
const picture = async (name, url, { full = false, ready, ...options }) => {
  const page = await open(browser, { locale: "en-GB", timezoneId: "Europe/Rome", reducedMotion: "reduce", ...options });
  await page.goto(url);
  await ready?.(page);
  await page.locator("#mark.live").waitFor({ timeout: 3_000 }).catch(() => {});
  await page.screenshot({ path: `${folder}${name}.png`, fullPage: full });
  await page.context().close();
};
const phone = { viewport: { width: 390, height: 780 }, deviceScaleFactor: 1.5, isMobile: true };
const desktop = { viewport: { width: 1280, height: 800 } };

const slow = await Service.start({ STAGE_DELAYS: "500ms,500ms,4m,11m" });
const quick = await Service.start({ STAGE_DELAYS: "4s,6s,9s,12s", SIMULATE_RATE: "1.5" });
try {
  const order = { customer_name: "Ada Lovelace", item: "pizza funghi", address: "12 St James's Square, London" };
  const id = await slow.place(order);
  const cooking = (page) => page.getByRole("heading", { name: "It is cooking" }).waitFor();
  await picture("track", `${slow.url}/track/${id}`, { ...phone, ready: cooking });
  await picture("track-dark", `${slow.url}/track/${id}`, { ...phone, colorScheme: "dark", ready: cooking });
  const lunch = await quick.place(order);
  const done = (page) => page.locator(".timeline").getByText("COOKING").waitFor();
  await picture("board", `${quick.url}/?id=${lunch}`, { ...desktop, ready: done });
  await picture("board-dark", `${quick.url}/?id=${lunch}`, { ...desktop, colorScheme: "dark" });
  if (process.env.ALL_PICTURES) {
    await picture("x-phone-board", `${quick.url}/`, { ...phone, full: true });
    await picture("x-lost", `${quick.url}/track/unknown`, phone);
    const release = await quick.lock();
    await picture("x-overdue", `${quick.url}/`, { ...desktop, ready: (page) => page.getByText("Why: this replica").waitFor() });
    await release();
    await picture("x-arrived", `${quick.url}/track/${lunch}`, { ...phone, ready: (page) => page.getByRole("heading", { name: "Delivered", level: 1 }).waitFor({ timeout: 60_000 }) });
  }
} finally {
  await slow.stop();
  await quick.stop();
  await browser.close();
}
