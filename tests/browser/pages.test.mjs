// The customer's page and the board, as people use them.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Service, ZONE, faults, launch, open, stay } from "./harness.mjs";

const STEPS = ["Order placed", "Preparing", "Cooking", "Out for delivery", "Delivered"];
const HOSTILE = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(2)>\u202eevil\u2066";

let browser, service;

before(async () => {
  browser = await launch();
  service = await Service.start({ STAGE_DELAYS: "1s" });
});
after(async () => {
  await browser?.close();
  await service?.stop();
});

/** Waits until the customer's page tells that the order has arrived. */
const arrived = (page) => page.getByRole("heading", { name: "Delivered", level: 1 }).waitFor();
const steps = (page) => page.locator(".steps li").allInnerTexts();

test("an order placed on the board is followed until it is delivered without a reload", async () => {
  const page = await open(browser);
  await page.goto(service.url);
  await page.getByRole("button", { name: "Place a demo order" }).click();
  await page.getByRole("heading", { name: /^Order ORD-/ }).waitFor();
  await page.getByRole("link", { name: "Customer's page" }).click();
  await page.waitForURL(/\/track\/ORD-/);
  const stayed = await stay(page);
  await page.locator("#mark.live").waitFor();
  const said = await page.evaluate(() => new Promise((done) => {
    const heard = [];
    const announcement = document.getElementById("announcement");
    new MutationObserver(() => {
      heard.push(announcement.textContent);
      if (announcement.textContent === "Delivered") done(heard);
    }).observe(announcement, { childList: true });
  }));
  await arrived(page);
  assert.equal(await stayed(), true, "the page was loaded once");
  assert.deepEqual(said.slice(-2), ["On its way to you", "Delivered"]);
  assert.match(await page.title(), /^Delivered · /);
  assert.match(await page.locator("#icon").getAttribute("href"), /\/delivered\.svg$/);
  const shown = await steps(page);
  STEPS.forEach((step, at) => assert.match(shown[at], new RegExp(`^${step}\\s+\\d\\d:\\d\\d:\\d\\d\\s+(you|by schedule)$`)));
  assert.equal(await page.locator("[aria-current=step]").innerText(), shown[4]);
  const last = page.locator(".steps time").last();
  const expected = new Date(await last.getAttribute("datetime"))
    .toLocaleTimeString("en-GB", { timeZone: ZONE });
  assert.equal(await last.innerText(), expected);
  assert.equal(await page.locator("#mark").isVisible(), false, "nothing more will come");
  assert.deepEqual(page.trouble, []);
  await page.context().close();
});

test("the page comes back after the server was killed and misses nothing", async () => {
  const own = await Service.start({ STAGE_DELAYS: "3s,1s,1s,1s" });
  try {
    const page = await open(browser);
    await page.goto(`${own.url}/track/${await own.place()}`);
    const stayed = await stay(page);
    await page.locator("#mark.live").waitFor();
    await own.kill();
    await page.getByText("Reconnecting…").waitFor();
    assert.match((await steps(page))[0], /^Order placed/, "what was known stays");
    await own.again();
    await page.locator("#mark.live").waitFor();
    await arrived(page);
    assert.equal(await stayed(), true);
    for (const step of await steps(page)) assert.match(step, /\d\d:\d\d:\d\d\s+(you|by schedule)$/);
    assert.deepEqual(page.trouble, []);
    await page.context().close();
  } finally {
    await own.stop();
  }
});

test("a page notices that its connection is dead", async () => {
  const own = await Service.start({ STAGE_DELAYS: "1h" });
  try {
    const page = await open(browser);
    await page.clock.install();
    await page.addInitScript(() => {
      window.streams = 0;
      window.EventSource = class extends EventSource {
        constructor(address) {
          super(address);
          window.streams++;
          this.addEventListener("beat", () => console.log("a beat"));
        }
      };
    });
    await page.goto(`${own.url}/track/${await own.place()}`);
    await page.locator("#mark.live").waitFor();
    const beat = page.waitForEvent("console", (message) => message.text() === "a beat");
    await page.clock.fastForward(15_000);
    await beat;
    await page.clock.fastForward(15_000);
    assert.equal(await page.evaluate(() => window.streams), 1, "a beat is a sign of life");
    own.freeze();
    await page.clock.fastForward(36_000);
    await page.getByText("Reconnecting…").waitFor();
    own.freeze(false);
    await page.locator("#mark.live").waitFor();
    assert.deepEqual(page.trouble, []);
    await page.context().close();
  } finally {
    await own.stop();
  }
});

/** What a browser does with a page that goes into the background, or comes to the front. */
const hide = (page, hidden = true) => page.evaluate((hidden) => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
  document.dispatchEvent(new Event("visibilitychange"));
}, hidden);

test("a page that nobody sees gives its connection back and still follows", async () => {
  const own = await Service.start({ STAGE_DELAYS: "2s,1h,1h,1h" });
  try {
    const page = await open(browser);
    await page.clock.install();
    const id = await own.place();
    await page.goto(`${own.url}/track/${id}`);
    await page.locator("#mark.live").waitFor();
    const stream = (request) => request.url().includes("/events?");
    let opened = 0;
    page.on("request", (request) => { if (stream(request)) opened++; });
    const closed = page.waitForEvent("requestfailed", stream);
    await hide(page);
    await closed;
    await own.says(`/orders/${id}`, /"status":"PREPARING"/);
    await page.clock.fastForward(15_000);
    await page.getByRole("heading", { name: "The kitchen is at work" }).waitFor();
    assert.match(await page.title(), /^Preparing · /);
    assert.match(await page.locator("#icon").getAttribute("href"), /\/preparing\.svg$/);
    assert.equal(opened, 0, "nobody sees it");
    const again = page.waitForRequest(stream);
    await hide(page, false);
    await again;
    assert.deepEqual(page.trouble, []);
    await page.context().close();
  } finally {
    await own.stop();
  }
});

test("many pages side by side leave each other connections", async () => {
  const own = await Service.start({ STAGE_DELAYS: "1h" });
  try {
    const pages = [await open(browser)];
    while (pages.length < 9) pages.push(await pages[0].context().newPage());
    for (const page of pages) {
      await page.goto(`${own.url}/track/${await own.place()}`);
      await page.locator("#mark.live").waitFor();
    }
    await pages[4].getByText("Updates now and then").waitFor();
    const live = await Promise.all(pages.map((page) => page.locator("#mark.live").count()));
    assert.deepEqual(live, [0, 0, 0, 0, 0, 1, 1, 1, 1]);
    // Who turns to one sees it live again.
    await pages[0].evaluate(() => window.dispatchEvent(new Event("focus")));
    await pages[0].locator("#mark.live").waitFor();
    await pages[5].getByText("Updates now and then").waitFor();
    assert.deepEqual(pages[0].trouble, []);
    await pages[0].context().close();
  } finally {
    await own.stop();
  }
});

test("a page whose order is gone says so and leaves the service alone", async () => {
  const own = await Service.start({ STAGE_DELAYS: "1h" });
  try {
    const page = await open(browser);
    await page.clock.install();
    await page.goto(`${own.url}/track/${await own.place()}`);
    await page.locator("#mark.live").waitFor();
    await own.kill();
    await own.empty();
    await own.again();
    await page.getByText("This order is not there any more").waitFor();
    let asked = 0;
    page.on("request", () => asked++);
    await page.clock.fastForward(120_000);
    await page.clock.runFor(10_000);
    assert.equal(asked, 0);
    await page.context().close();
  } finally {
    await own.stop();
  }
});

test("all works without JavaScript", async () => {
  const page = await open(browser, { javaScriptEnabled: false });
  await page.goto(service.url);
  await page.getByRole("button", { name: "Place a demo order" }).click();
  const number = (await page.getByRole("heading", { name: /^Order ORD-/ }).innerText()).slice(6);
  assert.equal(await page.getByRole("button", { name: "Pause" }).isVisible(), false);
  await page.getByRole("searchbox").fill(number.toLowerCase());
  await page.getByRole("button", { name: "Find" }).click();
  await page.getByRole("link", { name: "Customer's page" }).click();
  assert.equal((await steps(page)).length, 5);
  assert.match(await page.locator(".steps").innerText(), /UTC/);
  // The page asks again by itself.
  await arrived(page);
  await page.context().close();
});

/** The words around what customers wrote whose letters do not stand in reading order, as they are painted. */
const turned = (page) => page.locator("main").evaluate((main) => {
  const painted = (node) => Array.from(node.data, (_, at) => {
    const range = document.createRange();
    range.setStart(node, at);
    range.setEnd(node, at + 1);
    return range.getClientRects()[0];
  }).filter((place) => place);
  const after = (one, other) => one.top > other.bottom - 1 || one.left >= other.right - 1;
  const wrong = [];
  for (const element of main.querySelectorAll(":not(bdi)")) {
    const texts = [...element.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE);
    const places = texts.flatMap(painted);
    if (!places.every((place, at) => at === 0 || after(place, places[at - 1]))) wrong.push(element.textContent);
  }
  return wrong;
});

test("hostile text stays text", async () => {
  for (const text of [HOSTILE, "<script>alert(1)</script>\u2069\u202e"]) {
    const id = await service.place({ customer_name: text, address: text, item: text });
    for (const path of [`/track/${id}`, `/?id=${id}`, `/?id=${encodeURIComponent(text)}`]) {
      const page = await open(browser);
      await page.goto(service.url + path);
      assert.ok((await page.locator("main").innerText()).includes("<script>alert(1)</script>"), path);
      assert.equal(await page.locator("main script, img[src=x]").count(), 0, path);
      // Marks that turn text around end with the text they came in.
      await page.locator("details").evaluateAll((all) => all.forEach((details) => { details.open = true; }));
      assert.deepEqual(await turned(page), [], path);
      assert.deepEqual(page.trouble, []);
      await page.context().close();
    }
  }
});

test("axe finds nothing, by day and by night", async () => {
  const id = await service.place();
  const calm = await Service.start({ STAGE_DELAYS: "1h" });
  const waiting = await calm.place();
  try {
    for (const colorScheme of ["light", "dark"]) {
      for (const url of [
        `${service.url}/track/${id}`, `${calm.url}/track/${waiting}`, `${service.url}/track/unknown`,
        `${service.url}/?id=${id}`, `${calm.url}/`, `${calm.url}/?id=nobody&status=PLACED`,
      ]) {
        const page = await open(browser, { colorScheme, reducedMotion: "reduce" });
        await page.goto(url);
        assert.deepEqual(await faults(page), [], `${url}, ${colorScheme}`);
        await page.context().close();
      }
    }
  } finally {
    await calm.stop();
  }
});

test("the keyboard is enough, and focus stays where it is", async () => {
  const page = await open(browser);
  const focused = () => page.evaluate(() => document.activeElement.textContent.trim());
  const reach = async (name) => {
    for (let presses = 0; presses < 60 && (await focused()) !== name; presses++) await page.keyboard.press("Tab");
    assert.equal(await focused(), name);
  };
  await page.goto(service.url);
  await reach("Place a demo order");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: /^Order ORD-/ }).waitFor();
  await reach("Customer's page");
  // The board is renewed around the focus.
  const seen = await page.locator("#content").getAttribute("data-now");
  await page.waitForFunction((seen) => document.getElementById("content").dataset.now > Number(seen) + 2_000, seen);
  assert.equal(await focused(), "Customer's page");
  await page.keyboard.press("Enter");
  await page.waitForURL(/\/track\/ORD-/);
  await arrived(page);
  assert.deepEqual(page.trouble, []);
  await page.context().close();
});

test("nothing sticks out on a phone", async () => {
  const long = { customer_name: "W".repeat(100), address: "W".repeat(300), item: "W".repeat(100) };
  const id = await service.place(long);
  for (const width of [320, 375]) {
    for (const path of [`/track/${id}`, "/track/unknown", "/", `/?id=${id}`]) {
      const page = await open(browser, { viewport: { width, height: 640 }, isMobile: true });
      await page.goto(service.url + path);
      const [wide, room] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
      assert.ok(wide <= room && room === width, `${path} is ${wide} wide on ${room}`);
      await page.context().close();
    }
  }
});

test("the board shows what is overdue, why, and that it is over", async () => {
  const own = await Service.start({ STAGE_DELAYS: "1s" });
  try {
    const page = await open(browser);
    await page.goto(own.url);
    const id = await own.place();
    const release = await own.lock();
    await page.getByText(/Why: this replica can't write steps/).waitFor();
    assert.match(await page.title(), /^\(1 overdue\)/);
    await page.locator(".looks").getByRole("link", { name: id }).first().click();
    await page.getByText(/late\. Why: this replica/).waitFor();
    await release();
    await page.getByText("All well", { exact: true }).waitFor();
    await page.locator(".timeline").getByText("DELIVERED").waitFor();
    assert.deepEqual(page.trouble, []);
    await page.context().close();
  } finally {
    await own.stop();
  }
});

test("a page does not go on promising a moment that has passed", async () => {
  const own = await Service.start({ STAGE_DELAYS: "1s,100ms,100ms,100ms" });
  try {
    const page = await open(browser);
    await page.clock.install();
    const id = await own.place();
    const release = await own.lock();
    await page.goto(`${own.url}/track/${id}`);
    await page.getByText("Arrives between").waitFor();
    const stayed = await stay(page);
    await page.locator(".arrival").getByText("Later than expected").waitFor();
    const again = page.waitForRequest(/\/track\//);
    await page.clock.fastForward(15_000);
    await again;
    await release();
    await arrived(page);
    assert.equal(await stayed(), true);
    assert.deepEqual(page.trouble, []);
    await page.context().close();
  } finally {
    await own.stop();
  }
});

test("the table stays where it is while orders come and go", async () => {
  const own = await Service.start({ STAGE_DELAYS: "1h", SIMULATE_RATE: "20" });
  try {
    const page = await open(browser);
    await page.goto(own.url);
    await page.locator("tbody tr").nth(29).waitFor();
    await page.getByText("All well", { exact: true }).waitFor();
    const tops = await page.evaluate(() => new Promise((done) => {
      const seen = [];
      new MutationObserver(() => {
        seen.push(document.querySelector(".orders").getBoundingClientRect().top);
        if (seen.length === 8) done(seen);
      }).observe(document.getElementById("content"), { attributeFilter: ["data-now"] });
    }));
    assert.equal(new Set(tops).size, 1, String(tops));
    await page.context().close();
  } finally {
    await own.stop();
  }
});

test("a paused board stands still and goes on when asked", async () => {
  const page = await open(browser);
  await page.goto(service.url);
  await page.getByRole("button", { name: "Pause" }).click();
  await page.getByText("Paused").waitFor();
  let asked = 0;
  page.on("request", () => asked++);
  const id = await service.place({ item: "calzone" });
  // Another board sees it come and go meanwhile.
  const other = await open(browser);
  await other.goto(`${service.url}/?id=${id}`);
  await other.locator(".timeline").getByText("DELIVERED").waitFor();
  assert.equal(asked, 0);
  await page.getByRole("button", { name: "Pause" }).click();
  await page.locator("tbody").getByText("calzone").waitFor();
  await page.context().close();
  await other.context().close();
});
