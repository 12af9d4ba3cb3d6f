// The pages on a phone, on a desktop, and in browsers that speak other languages.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Service, faults, launch, open, stay } from "./harness.mjs";

const PHONE = { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true };
const DESKTOP = { viewport: { width: 1280, height: 800 } };

/** A zone in which it is before noon, so that no day ends during a test. */
const MORNING = new Date().getUTCHours() < 12 ? { timezoneId: "UTC", offset: "Z" } : { timezoneId: "Etc/GMT+12", offset: "-12:00" };
const { timezoneId } = MORNING;

let browser, service;

before(async () => {
  browser = await launch();
  service = await Service.start({ STAGE_DELAYS: "1h" });
});
after(async () => {
  await browser?.close();
  await service?.stop();
});

/** Waits until the board says that all is well. */
const well = (page) => page.getByText("All well", { exact: true }).waitFor();

test("orders come first where all is well", async () => {
  const id = await service.place();
  for (const screen of [PHONE, DESKTOP]) {
    const page = await open(browser, screen);
    await page.goto(service.url);
    await well(page);
    const row = await page.locator(`[id="${id}"]`).boundingBox();
    assert.ok(row.y + row.height <= screen.viewport.height, `it ends at ${row.y + row.height}`);
    const line = await page.locator("#well").boundingBox();
    assert.ok(line.height < 50, `one line: ${line.height}`);
    // What is behind the line is a tap away, and stays open while the board renews itself.
    await page.getByText("All well").click();
    await page.getByText("No message waits to be looked at.").waitFor();
    const seen = await page.locator("#content").getAttribute("data-now");
    await page.waitForFunction((seen) => Number(document.getElementById("content").dataset.now) > Number(seen) + 2_000, seen);
    assert.ok(await page.getByText("No message waits to be looked at.").isVisible());
    assert.deepEqual(page.trouble, []);
    await page.context().close();
  }
});

test("what needs a look stands above the orders", async () => {
  const own = await Service.start({ STAGE_DELAYS: "1s" });
  try {
    await own.place();
    const release = await own.lock();
    const page = await open(browser, PHONE);
    await page.goto(own.url);
    await page.getByText(/Why: this replica can't write steps/).waitFor();
    const top = async (name) => (await page.locator(name).first().boundingBox()).y;
    assert.ok((await top("#looks")) < (await top("#well")) && (await top("#well")) < (await top(".orders")));
    await page.getByText("All else is well").waitFor();
    await release();
    await well(page);
    await page.context().close();
  } finally {
    await own.stop();
  }
});

test("all that can be touched is large enough", async () => {
  const id = await service.place();
  for (const screen of [PHONE, DESKTOP]) {
    for (const path of ["/", `/?id=${id}`, "/?id=ada", "/?status=PLACED&id=nobody", `/track/${id}`, `/track/${id}/cancel`, "/track/unknown", "/docs"]) {
      const page = await open(browser, screen);
      await page.goto(service.url + path);
      // Links within a sentence are as high as its lines.
      const touched = path === "/docs" ? "nav a, summary" : "a, button, select, input:not([type=hidden]), summary";
      const small = await page.evaluate((touched) => {
        for (const details of document.querySelectorAll("details")) details.open = true;
        return [...document.querySelectorAll(touched)]
          .filter((element) => element.getClientRects().length > 0)
          .map((element) => [element.outerHTML, element.getBoundingClientRect()])
          .filter(([, { width, height }]) => width < 44 || height < 44)
          .map(([html, { width, height }]) => `${width} x ${height}: ${html}`);
      }, touched);
      assert.deepEqual(small, [], `${path} at ${screen.viewport.width}`);
      await page.context().close();
    }
  }
});

test("an order is found by what people remember, without JavaScript too", async () => {
  const id = await service.place({ customer_name: "Asha Rao", item: "dal makhani" });
  for (const javaScriptEnabled of [true, false]) {
    for (const typed of ["asha", "MAKHANI", id.slice(-6).toLowerCase()]) {
      const page = await open(browser, { ...PHONE, javaScriptEnabled });
      await page.goto(service.url);
      await page.getByRole("searchbox").fill(typed);
      await page.getByRole("button", { name: "Find" }).click();
      await page.getByText("among the newest 10,000 orders").waitFor();
      assert.equal(await page.locator("tbody tr").count(), 1, typed);
      await page.getByRole("heading", { name: `Order ${id}` }).waitFor();
      assert.equal(await page.getByRole("searchbox").inputValue(), typed);
      await page.context().close();
    }
  }
});

test("a page speaks one language, whatever the browser's", async () => {
  const own = await Service.start({ STAGE_DELAYS: "10m" });
  try {
    const id = await own.place();
    for (const [locale, steps, arrival] of [
      ["ar-EG", /\d{1,2}:\d\d:\d\d [AP]M/, /^\d{1,2}:\d\d and \d{1,2}:\d\d [AP]M$|^\d{1,2}:\d\d [AP]M and \d{1,2}:\d\d [AP]M$/],
      ["fa-IR", /\d{1,2}:\d\d:\d\d [AP]M/, /[AP]M$/],
      ["de-DE", /\d{1,2}:\d\d:\d\d [AP]M/, /[AP]M$/],
      ["en-US", /\d{1,2}:\d\d:\d\d [AP]M/, /[AP]M$/],
      ["en-GB", /\d\d:\d\d:\d\d$/, /^\d\d:\d\d and \d\d:\d\d$/],
    ]) {
      const page = await open(browser, { ...PHONE, locale, timezoneId });
      await page.goto(`${own.url}/track/${id}`);
      await page.locator("#mark.live").waitFor();
      assert.match(await page.locator(".steps time").first().innerText(), steps, locale);
      assert.match(await page.locator(".arrival strong").innerText(), arrival, locale);
      assert.match(await page.locator(".arrival .left").innerText(), /^in \d+ to \d+ minutes$/, locale);
      assert.match(await page.locator("body").innerText(), /^[\p{ASCII}…·’]*$/u, locale);
      await page.goto(`${own.url}/?id=${id}`);
      await page.locator("#mark.live").waitFor();
      assert.match(await page.locator("tbody time").first().innerText(), steps, locale);
      assert.deepEqual(page.trouble, []);
      await page.context().close();
    }
  } finally {
    await own.stop();
  }
});

test("an arrival is told in whole minutes, on one line, with what both moments share said once", async () => {
  const own = await Service.start({ STAGE_DELAYS: "8m" });
  try {
    const id = await own.place();
    const page = await open(browser, { ...PHONE, locale: "en-US", timezoneId });
    await page.goto(`${own.url}/track/${id}`);
    await page.locator("#mark.live").waitFor();
    // 32 minutes are far off.
    const times = await page.locator(".arrival time").evaluateAll((all) => all.map((time) => time.dateTime));
    for (const time of times) assert.equal(new Date(time).getTime() % 300_000, 0, time);
    // What is left is as coarse, and minutes are counted from half an hour on.
    const left = (...minutes) => page.evaluate((minutes) => {
      const span = document.querySelector(".arrival .left");
      const now = Date.now();
      [span.dataset.from, span.dataset.to] = minutes.map((minutes) => now + 60_000 * minutes);
      return import(document.querySelector("link[rel=modulepreload]").href).then(({ dress }) => {
        dress(document);
        return span.textContent;
      });
    }, minutes);
    assert.match(await page.locator(".arrival .left").innerText(), /^in 30 to \d[05] minutes$/);
    assert.equal(await left(40.5, 41.5), "in 40 to 45 minutes");
    assert.equal(await left(39.9, 41.5), "in 35 to 45 minutes");
    assert.equal(await left(31, 40.5), "in 30 to 45 minutes");
    assert.equal(await left(29.5, 30.5), "in 30 to 31 minutes");
    assert.match(await left(1.5, 1.9), /^in 9\d to 11\d seconds$/);
    assert.equal(await left(150, 170), "in 3 hours");
    const lines = await page.locator(".arrival strong").evaluate((strong) => strong.getClientRects().length);
    const box = await page.locator(".arrival strong").boundingBox();
    assert.ok(lines === 1 && box.height < 40, `${box.height}`);
    // Two moments in words, at other hours of the day.
    const between = (...moments) => page.evaluate((moments) => {
      const strong = document.querySelector(".arrival strong");
      const [from, to] = strong.querySelectorAll("time");
      [from.dateTime, to.dateTime] = moments;
      return import(document.querySelector("link[rel=modulepreload]").href).then(({ dress }) => {
        dress(document);
        return strong.textContent;
      });
    }, moments.map((moment) => `${moment}:00${MORNING.offset}`));
    const today = await page.evaluate(() => new Date().toLocaleDateString("sv-SE"));
    assert.equal(await between(`${today}T19:00`, `${today}T19:05`), "7:00 and 7:05 PM");
    assert.equal(await between(`${today}T11:55`, `${today}T12:05`), "11:55 AM and 12:05 PM");
    assert.equal(await between("2026-01-02T19:00", "2026-01-02T19:05"), "Jan 2, 7:00 PM and Jan 2, 7:05 PM");
    await page.context().close();
  } finally {
    await own.stop();
  }
});

test("a page whose stream is refused asks now and then, and after a while for a stream again", async () => {
  const id = await service.place();
  for (const status of [429, 503]) {
    const page = await open(browser, PHONE);
    await page.clock.install();
    let asked = 0, refused = true;
    await page.route(/[/]events[?]/, (route) => {
      asked += 1;
      return refused ? route.fulfill({ status, body: "" }) : route.continue();
    });
    await page.goto(`${service.url}/track/${id}`);
    await page.getByText("Updates now and then").waitFor();
    assert.equal(asked, 2);
    const renewed = page.waitForResponse(`${service.url}/track/${id}`);
    await page.clock.fastForward(16_000);
    await renewed;
    await page.clock.fastForward(10_000);
    assert.equal(asked, 2, "not before half a minute");
    await page.getByText("Updates now and then").waitFor();
    refused = false;
    await page.clock.fastForward(35_000);
    await page.locator("#mark.live").waitFor();
    // Who comes back is not cut off by what was to come.
    await page.clock.fastForward(14_000);
    assert.equal(asked, 3);
    assert.deepEqual(page.trouble, []);
    await page.context().close();
  }
});

test("a late order shows the new estimate and no calm", async () => {
  const own = await Service.start({ STAGE_DELAYS: "1s,100ms,100ms,100ms" });
  try {
    const id = await own.place();
    const release = await own.lock();
    const page = await open(browser, { ...PHONE, timezoneId });
    await page.goto(`${own.url}/track/${id}`);
    const stayed = await stay(page);
    await page.locator(".arrival").getByText("Later than expected, now between").waitFor();
    await page.getByText("Live, running late").waitFor();
    assert.equal(await page.locator("#mark.live").count(), 0, "no green light");
    assert.match(await page.locator(".arrival strong").innerText(), /^\d\d:\d\d and \d\d:\d\d$/);
    assert.match(await page.title(), /^Later than expected · /);
    assert.match(await page.locator("#announcement").textContent(), /^Later than expected/);
    assert.doesNotMatch(await page.locator("main").innerText(), /We are on it|in a moment\./);
    await release();
    await page.getByRole("heading", { name: "Delivered", level: 1 }).waitFor();
    assert.equal(await stayed(), true);
    assert.deepEqual(page.trouble, []);
    await page.context().close();
  } finally {
    await own.stop();
  }
});

test("axe finds nothing on a phone or a desktop, late, found or in trouble", async () => {
  const own = await Service.start({ STAGE_DELAYS: "1s" });
  try {
    const id = await own.place({ customer_name: "Asha" });
    await own.lock();
    await own.says(`/track/${id}`, /Later than expected/);
    for (const screen of [PHONE, DESKTOP]) {
      for (const colorScheme of ["light", "dark"]) {
        for (const url of [`${service.url}/?id=ada`, `${own.url}/`, `${own.url}/?id=asha`, `${own.url}/track/${id}`, `${service.url}/docs`]) {
          const page = await open(browser, { ...screen, colorScheme, reducedMotion: "reduce" });
          await page.goto(url);
          if (!url.endsWith("/docs")) await page.locator("#mark:not([hidden])").waitFor();
          await page.evaluate(() => { for (const details of document.querySelectorAll("#well")) details.open = true; });
          assert.deepEqual(await faults(page), [], `${url}, ${colorScheme}, ${screen.viewport.width}`);
          await page.context().close();
        }
      }
    }
  } finally {
    await own.stop();
  }
});
