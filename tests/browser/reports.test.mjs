// What people report: the board's buttons, and what the customer's page makes of it.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Service, faults, launch, open, stay } from "./harness.mjs";

const PHONE = { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true };
const DESKTOP = { viewport: { width: 1280, height: 800 } };
const SCREENS = [PHONE, DESKTOP].flatMap((screen) => [true, false].map((javaScriptEnabled) => ({ ...screen, javaScriptEnabled })));

let browser, service;

before(async () => {
  browser = await launch();
  // Far enough off that nothing moves by itself, and near enough for minutes to be told.
  service = await Service.start({ STAGE_DELAYS: "20m", PROGRESSION: "reported" });
});
after(async () => {
  await browser?.close();
  await service?.stop();
});

const headline = (page, name) => page.getByRole("heading", { name, level: 1 }).waitFor();
const button = (page, name) => page.getByRole("button", { name, exact: true });
const steps = (page) => page.locator(".steps li").allInnerTexts();
const done = (page, words) => page.locator(".did").getByText(words).waitFor();

test("an order's life is reported by the board's buttons, without JavaScript too", async () => {
  for (const screen of SCREENS) {
    const id = await service.place();
    const page = await open(browser, screen);
    await page.goto(`${service.url}/?id=${id}`);
    await button(page, "Preparing").click();
    await done(page, /^Done: Preparing, staff, /);
    await button(page, "+10 min").click();
    await done(page, /^Done: Delayed by 10 min/);
    await button(page, "Undo: preparing").click();
    await done(page, /^Done: Taken back: Preparing/);
    assert.equal(await button(page, "Undo: preparing").count(), 0);
    await button(page, "Ready").click();
    await button(page, "Not ready: +5 min").click();
    await done(page, /^Done: Delayed by 5 min/);
    // Without a reason nothing is sent.
    await button(page, "Cancel the order").click();
    assert.match(page.url(), /did=/);
    await page.getByLabel("Why it is cancelled").selectOption("out of stock");
    if (screen.javaScriptEnabled) {
      // The board renews itself around the choice.
      const seen = await page.locator("#content").getAttribute("data-now");
      await page.waitForFunction((seen) => Number(document.getElementById("content").dataset.now) > Number(seen) + 2_000, seen);
    }
    await button(page, "Cancel the order").click();
    await done(page, /^Done: Cancelled, staff/);
    await page.locator(`[id="${id}"]`).getByText("cancelled: out of stock").waitFor();
    assert.equal(await button(page, "Cooking").count(), 0);
    await button(page, "Undo: cancelled").click();
    await done(page, /^Done: Taken back: Cancelled/);
    await page.locator(".timeline").getByText("takes back CANCELLED").waitFor();
    assert.deepEqual(page.trouble, []);
    await page.context().close();
  }
});

test("two who press at once are told who was faster", async () => {
  for (const javaScriptEnabled of [true, false]) {
    const id = await service.place();
    const page = await open(browser, { javaScriptEnabled });
    await page.goto(`${service.url}/?id=${id}`);
    if (javaScriptEnabled) await page.getByRole("button", { name: "Pause" }).click();
    await service.report(id, "COOKING");
    await button(page, "Cooking").click();
    await done(page, /^Already: Cooking, staff/);
    if (javaScriptEnabled) await page.getByRole("button", { name: "Pause" }).click();
    await service.report(id, "DELAYED", { minutes: 5 });
    await button(page, "+5 min").click();
    await page.getByText("The order changed while you looked. The latest: Delayed by 5 min").waitFor();
    // In the reader's own time, where that can be known.
    assert.equal(/UTC/.test(await page.locator("main").innerText()), !javaScriptEnabled);
    await page.getByRole("link", { name: "Back to the order" }).click();
    await page.getByRole("heading", { name: `Order ${id}` }).waitFor();
    const { events } = await (await fetch(`${service.url}/orders/${id}`)).json();
    assert.deepEqual([events.length, events.at(-1).event], [5, "DELAYED"]);
    assert.deepEqual(page.trouble, []);
    await page.context().close();
  }
});

test("a customer sees a delay, an undo and an end as they happen, and is told", async () => {
  const page = await open(browser, PHONE);
  await page.clock.install();
  const id = await service.place();
  await page.goto(`${service.url}/track/${id}`);
  const stayed = await stay(page);
  await page.locator("#mark.live").waitFor();
  const hears = (words) => page.waitForFunction((words) => new RegExp(words).test(document.getElementById("announcement").textContent), words);
  assert.match(await page.locator("#icon").getAttribute("href"), /\/placed\.svg$/);
  await service.report(id, "PREPARING");
  await hears("^The kitchen is at work$");
  assert.match((await steps(page))[1], /^Preparing\s+\d\d:\d\d:\d\d\s+the shop$/);
  await service.report(id, "DELAYED", { minutes: 40, reason: "courier_unavailable" });
  await headline(page, "It takes a bit longer");
  await hears("^It takes a bit longer Now expected between \\d\\d:\\d\\d and \\d\\d:\\d\\d$");
  await page.getByText("We are waiting for a courier.").waitFor();
  assert.match(await page.locator(".arrival .said").innerText(), /^20 min later than first said \(\d\d:\d\d\)$/);
  assert.match(await page.locator(".now .who").innerText(), /^the shop, \d\d:\d\d$/);
  assert.match(await page.title(), /^It takes a bit longer · /);
  assert.match(await page.locator("#icon").getAttribute("href"), /\/late\.svg$/);
  const first = await page.locator("#announcement").textContent();
  await service.report(id, "DELAYED", { minutes: 10 });
  await page.waitForFunction((first) => document.getElementById("announcement").textContent !== first, first);
  assert.match(await page.locator(".arrival .said").innerText(), /^30 min later/);
  await service.report(id, "COURIER_AT_DOOR");
  await hears("^The courier is at your door, \\d\\d:\\d\\d\\.$");
  await service.report(id, "DELIVERY_FAILED");
  await hears("^The courier could not reach you, \\d\\d:\\d\\d\\.$");
  await service.report(id, "CANCELLED", { reason: "undeliverable" });
  await hears("^Your order was cancelled The courier could not hand it over\\.$");
  assert.match(await page.title(), /^Cancelled · /);
  assert.match(await page.locator("#icon").getAttribute("href"), /\/cancelled\.svg$/);
  await page.getByText("Nothing will come, no need to wait.").waitFor();
  assert.deepEqual((await steps(page)).map((step) => step.split("\n")[0]), ["Order placed", "Preparing", "Cancelled"]);
  await page.locator("#mark").waitFor({ state: "hidden" });
  // It can be taken back, and the page notices that by itself.
  await service.report(id, "REVERTED");
  await page.clock.fastForward(16_000);
  await hears("^Back on: the shop took that back, \\d\\d:\\d\\d\\.$");
  await page.locator("#mark.live").waitFor();
  assert.equal((await steps(page)).length, 5);
  await service.report(id, "DELIVERED");
  await headline(page, "Delivered");
  assert.equal(await page.locator("body.arrived").count(), 1);
  // For five minutes, and no longer.
  let asked = 0;
  page.on("request", () => asked++);
  await page.clock.fastForward(301_000);
  await page.clock.runFor(2_000);
  asked = 0;
  await page.clock.fastForward(120_000);
  await page.clock.runFor(2_000);
  assert.equal(asked, 0);
  assert.equal(await stayed(), true, "the page was loaded once");
  assert.deepEqual(page.trouble, []);
  await page.context().close();
});

test("a customer calls an order off while nobody has begun, without JavaScript too", async () => {
  for (const screen of SCREENS) {
    const id = await service.place();
    const page = await open(browser, screen);
    await page.goto(`${service.url}/track/${id}`);
    await page.getByRole("link", { name: "Cancel my order" }).click();
    await page.getByText("Cancel it? The kitchen has not started.").waitFor();
    await page.getByRole("link", { name: "No, keep it" }).click();
    await page.getByRole("link", { name: "Cancel my order" }).click();
    await button(page, "Yes, cancel it").click();
    await headline(page, "Your order was cancelled");
    await page.getByText("You cancelled it.").waitFor();
    assert.match((await steps(page)).at(-1), /^Cancelled\s+\S+( UTC)?\s+you$/);
    await page.goBack();
    assert.deepEqual(page.trouble, []);
    await page.context().close();
  }
});

test("who calls off too late is told so in words", async () => {
  for (const screen of SCREENS) {
    const id = await service.place();
    const page = await open(browser, screen);
    await page.goto(`${service.url}/track/${id}/cancel`);
    await service.report(id, "PREPARING");
    await button(page, "Yes, cancel it").click();
    const zone = screen.javaScriptEnabled ? "" : " UTC";
    const late = new RegExp(`^The kitchen started at \\d\\d:\\d\\d${zone}, so it can't be cancelled here. Please call the shop.$`);
    await page.getByText(late).waitFor();
    await page.getByRole("link", { name: "Back to your order" }).click();
    await headline(page, "The kitchen is at work");
    assert.equal(await page.getByRole("link", { name: "Cancel my order" }).count(), 0);
    assert.deepEqual(page.trouble, []);
    await page.context().close();
  }
});

/** Orders at every turn that pages tell. */
async function turns() {
  const [delayed, cancelled, own, back, under, calm] = await Promise.all(Array.from({ length: 6 }, () => service.place()));
  await service.report(delayed, "COOKING");
  await service.report(delayed, "DELAYED", { minutes: 20, reason: "too_busy" });
  await service.report(cancelled, "PREPARING");
  await service.report(cancelled, "CANCELLED", { reason: "out_of_stock" });
  await service.report(own, "CANCELLED", { reason: "customer_request" });
  await service.report(back, "COOKING");
  await service.report(back, "REVERTED");
  await service.report(under, "OUT_FOR_DELIVERY");
  await service.report(under, "COURIER_AT_DOOR");
  const pages = [delayed, cancelled, own, back, under].flatMap((id) => [`/track/${id}`, `/?id=${id}&did=${id}:3`]);
  return [...pages, `/track/${calm}`, `/?id=${calm}`, `/track/${calm}/cancel`, `/track/${delayed}/cancel`];
}

test("axe finds nothing on any of it, nothing sticks out, and all can be touched", async () => {
  const paths = await turns();
  for (const screen of [PHONE, { ...PHONE, viewport: { width: 320, height: 640 } }, DESKTOP]) {
    for (const colorScheme of ["light", "dark"]) {
      const page = await open(browser, { ...screen, colorScheme, reducedMotion: "reduce" });
      for (const path of paths) {
        await page.goto(service.url + path);
        const where = `${path}, ${colorScheme}, ${screen.viewport.width}`;
        assert.deepEqual(await faults(page), [], where);
        const [wide, room] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
        assert.ok(wide <= room, `${where} is ${wide} wide on ${room}`);
        const small = await page.evaluate(() => [...document.querySelectorAll("a, button, select, input:not([type=hidden])")]
          .filter((element) => element.getClientRects().length > 0)
          .map((element) => [element.outerHTML, element.getBoundingClientRect()])
          .filter(([, { width, height }]) => width < 44 || height < 44)
          .map(([html, { width, height }]) => `${width} x ${height}: ${html}`));
        assert.deepEqual(small, [], where);
      }
      assert.deepEqual(page.trouble, []);
      await page.context().close();
    }
  }
});
