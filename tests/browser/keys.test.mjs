// Who looks at the board says who he is, once, and sees what his role needs.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Service, faults, launch, open, stay } from "./harness.mjs";

const PHONE = { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true };
const DESKTOP = { viewport: { width: 1280, height: 800 } };
const LOOKS = [PHONE, DESKTOP].flatMap((screen) => ["light", "dark"].map((colorScheme) => ({ ...screen, colorScheme, reducedMotion: "reduce" })));
const UNKNOWN = "otk_000000000000000000000000000000_2YksSr";

let browser, service, id;

before(async () => {
  browser = await launch();
  service = await Service.start({ STAGE_DELAYS: "1h" }, ["staff", "kitchen", "courier", "reader"]);
  id = await service.place();
});
after(async () => {
  await browser?.close();
  await service?.stop();
});

const asks = (page) => page.getByRole("heading", { name: "Sign in", level: 1 }).waitFor();
const board = (page) => page.getByRole("button", { name: "Sign out" }).waitFor();

/** A page that is signed in with a key of this role. */
async function signedIn(role, options, path = "/", at = service) {
  const page = await open(browser, options);
  await page.goto(at.url + path);
  await page.getByLabel("Your key").fill(at.keys[role]);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("button", { name: "Sign out" }).waitFor();
  return page;
}

/** Nothing is wider than the screen. */
const fits = (page) => page.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth);

test("axe finds nothing where a key is asked for, refused, or for something else", async () => {
  for (const look of LOOKS) {
    const which = `${look.colorScheme}, ${look.viewport.width}`;
    const page = await open(browser, look);
    await page.goto(service.url);
    await asks(page);
    assert.deepEqual(await faults(page), [], `asked, ${which}`);
    assert.ok(await fits(page), which);
    for (const touched of await page.locator("a, button, input:not([type=hidden])").all()) {
      const { width, height } = await touched.boundingBox();
      assert.ok(width >= 44 && height >= 44, `${await touched.innerText()} can be touched: ${width} x ${height}`);
    }
    await page.getByLabel("Your key").fill(UNKNOWN);
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("alert").waitFor();
    assert.deepEqual(await faults(page), [], `refused, ${which}`);
    assert.ok(await fits(page), which);
    assert.deepEqual(page.trouble, []);
    await page.context().close();
    for (const [role, path] of [["kitchen", `/?id=${id}`], ["reader", "/"], ["courier", "/"]]) {
      const seen = await signedIn(role, look, path);
      assert.deepEqual(await faults(seen), [], `${role}, ${which}`);
      assert.ok(await fits(seen), `${role}, ${which}`);
      await seen.context().close();
    }
  }
});

test("somebody signs in by keyboard alone and sees what he wanted to see", async () => {
  const page = await open(browser, DESKTOP);
  await page.goto(`${service.url}/?status=PLACED`);
  await asks(page);
  assert.equal(await page.evaluate(() => document.activeElement.id), "key");
  await page.keyboard.type(service.keys.staff);
  await page.keyboard.press("Enter");
  await board(page);
  assert.equal(page.url(), `${service.url}/?status=PLACED`);
  await page.getByText("staff (staff)").waitFor();
  assert.ok(!(await page.context().cookies())[0].value.includes("otk_"));
  assert.deepEqual(page.trouble, []);
  await page.context().close();
});

test("a wrong key is told and announced, and stays nowhere", async () => {
  const page = await open(browser, PHONE);
  await page.goto(`${service.url}/?status=PLACED`);
  await page.getByLabel("Your key").fill(UNKNOWN);
  await page.getByRole("button", { name: "Sign in" }).click();
  const alert = page.getByRole("alert");
  await alert.waitFor();
  assert.equal(await alert.innerText(), "This key is mistyped, unknown or revoked.");
  assert.equal(await page.locator("#key").getAttribute("aria-describedby"), "why");
  assert.equal(await page.locator("#key").inputValue(), "");
  assert.equal(await page.evaluate(() => document.activeElement.id), "key");
  assert.ok(!page.url().includes("otk_") && !(await page.content()).includes("otk_0"));
  assert.deepEqual(await page.context().cookies(), []);
  await page.locator("#key").fill(service.keys.staff);
  await page.locator("#key").press("Enter");
  await board(page);
  assert.equal(page.url(), `${service.url}/?status=PLACED`, "what he wanted to see is not forgotten");
  await page.context().close();
});

test("a kitchen works without addresses", async () => {
  const page = await signedIn("kitchen", PHONE, `/?id=${id}`);
  await page.getByRole("heading", { name: /^Order ORD-/ }).waitFor();
  const seen = await page.content();
  assert.ok(seen.includes("Ada Lovelace") && !seen.includes("12 St James") && !seen.includes("Dead letters"));
  await page.locator("#act-PREPARING").click();
  await page.locator(".did").waitFor();
  await page.getByText("the kitchen (kitchen)").waitFor();
  assert.equal(await page.locator("#act-DELIVERED").count(), 0);
  assert.deepEqual(page.trouble, []);
  await page.context().close();
});

test("a list without names is as tidy as one with them", async () => {
  for (const role of ["reader", "staff"]) {
    const page = await signedIn(role, PHONE);
    const row = page.locator(`[id="${id}"]`);
    const [box, since] = [await row.boundingBox(), await row.locator("time").boundingBox()];
    assert.ok(Math.abs(box.x + box.width - since.x - since.width) < 3, `${role}: the time stands on the right`);
    assert.equal((await row.innerText()).includes("Ada"), role === "staff");
    assert.ok(await fits(page));
    await page.context().close();
    const wide = await signedIn(role, DESKTOP);
    const [heads, cells] = [wide.locator(".orders th"), wide.locator(`[id="${id}"] td`)];
    assert.equal(await heads.count(), role === "staff" ? 5 : 4);
    assert.equal(await heads.count(), await cells.count());
    await wide.context().close();
  }
});

test("who signs out has to sign in again, whichever way he comes back", async () => {
  const page = await signedIn("staff", DESKTOP);
  await page.getByRole("button", { name: "Sign out" }).click();
  await asks(page);
  assert.deepEqual(await page.context().cookies(), []);
  await page.goBack();
  await asks(page);
  await page.goto(`${service.url}/?id=${id}`);
  await asks(page);
  assert.ok(!(await page.content()).includes("Ada"));
  assert.deepEqual(page.trouble, []);
  await page.context().close();
});

test("a board whose key is revoked asks for another by itself", async () => {
  const own = await Service.start({ STAGE_DELAYS: "1h" }, ["staff", "kitchen"]);
  try {
    const page = await signedIn("kitchen", DESKTOP, "/?status=PLACED", own);
    await page.locator("#mark.live").waitFor();
    await own.run("keys", "revoke", "kitchen");
    await asks(page);
    assert.equal(await page.getByRole("alert").count(), 0, "he has done nothing wrong");
    await page.getByLabel("Your key").fill(own.keys.staff);
    await page.keyboard.press("Enter");
    await board(page);
    assert.equal(page.url(), `${own.url}/?status=PLACED`);
    assert.deepEqual(page.trouble, []);
    await page.context().close();
  } finally {
    await own.stop();
  }
});

test("a customer follows without a key, and sees nobody", async () => {
  const own = await service.place();
  const page = await open(browser, PHONE);
  await page.goto(`${service.url}/track/${own}`);
  await page.locator("#mark.live").waitFor();
  const stayed = await stay(page);
  await service.report(own, "PREPARING");
  await page.getByRole("heading", { name: "The kitchen is at work" }).waitFor();
  assert.equal(await stayed(), true);
  const seen = await page.content();
  assert.ok(seen.includes("pizza margherita"));
  for (const secret of ["Ada", "St James", "Cancel my order"]) assert.ok(!seen.includes(secret), secret);
  assert.deepEqual(await faults(page), []);
  assert.deepEqual(page.trouble, []);
  await page.context().close();
});

test("a board that everybody reaches says so, above all else", async () => {
  const own = await Service.start({ STAGE_DELAYS: "1h", APP_HOST: "0.0.0.0" });
  try {
    await own.place();
    for (const look of LOOKS) {
      const page = await open(browser, look);
      await page.goto(own.url);
      const [told, orders] = [await page.locator(".exposed").boundingBox(), await page.locator(".orders").boundingBox()];
      assert.ok(told.y < orders.y && told.height < 200, `${told.y} ${told.height}`);
      assert.deepEqual(await faults(page), [], `${look.colorScheme}, ${look.viewport.width}`);
      assert.ok(await fits(page));
      assert.deepEqual(page.trouble, []);
      await page.context().close();
    }
  } finally {
    await own.stop();
  }
});
