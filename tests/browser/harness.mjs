// A running service and a browser to look at it with.
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";
import { chromium } from "playwright-core";

const PATIENCE = 60_000;

/** Where the readers live: the minutes tell it from UTC, and the next hours are of the same day. */
export const ZONE = new Date().getUTCHours() < 14 ? "Asia/Kathmandu" : "Pacific/Marquesas";

/** One that can be killed and started again on the same port and the same data. */
export class Service {
  /** With `roles` it asks for keys, and has one of each. */
  static async start(settings = {}, roles = []) {
    const service = new Service();
    service.folder = await mkdtemp(join(tmpdir(), "order-tracker-browser-"));
    service.settings = roles.length > 0 ? { AUTH: "keys", ...settings } : settings;
    service.port = "0";
    service.keys = {};
    for (const role of roles) service.keys[role] = (await service.run("keys", "create", "--name", role, "--role", role)).trim();
    await service.again();
    return service;
  }

  async again() {
    const { PATH, HOME } = process.env;
    this.process = spawn(process.env.ORDER_TRACKER, ["serve"], {
      env: { PATH, HOME, APP_PORT: this.port, DATA_DIR: join(this.folder, "data"), LOG_FORMAT: "json", ...this.settings },
      stdio: ["ignore", "ignore", "pipe"],
    });
    const log = [];
    const lines = createInterface({ input: this.process.stderr });
    this.url = await new Promise((found, failed) => {
      lines.on("line", (line) => {
        log.push(line);
        const url = /"url":"([^"]+)"/.exec(line)?.[1];
        if (url) found(url);
      });
      lines.on("close", () => failed(new Error(`it did not start:\n${log.join("\n")}`)));
    });
    this.url = this.url.replace("//0.0.0.0:", "//127.0.0.1:");
    this.port = new URL(this.url).port;
  }

  /** Runs a command beside it, on the same data; answers what it says. */
  async run(...command) {
    const { PATH, HOME } = process.env;
    const env = { PATH, HOME, DATA_DIR: join(this.folder, "data") };
    return (await promisify(execFile)(process.env.ORDER_TRACKER, command, { env })).stdout;
  }

  /** What a program shows that has a key. */
  get shown() {
    return this.keys.staff ? { authorization: `Bearer ${this.keys.staff}` } : {};
  }

  async kill() {
    const ended = once(this.process, "exit");
    this.process.kill("SIGKILL");
    await ended;
  }

  /** Falls silent and keeps its connections, as behind a network that is gone; `false` wakes it. */
  freeze(frozen = true) {
    this.process.kill(frozen ? "SIGSTOP" : "SIGCONT");
  }

  /** Loses all data, while it does not run. */
  async empty() {
    await rm(join(this.folder, "data"), { recursive: true, force: true });
  }

  async stop() {
    await this.kill();
    // A test that failed did not let go.
    this.shell?.kill();
    await rm(this.folder, { recursive: true, force: true });
  }

  /** Places an order and answers its id. */
  async place(order = {}) {
    const body = { customer_name: "Ada Lovelace", address: "12 St James's Square", item: "pizza margherita", size: "large", ...order };
    const headers = { "content-type": "application/json", ...this.shown };
    const answer = await fetch(`${this.url}/orders`, { method: "POST", headers, body: JSON.stringify(body) });
    if (answer.status !== 201) throw new Error(await answer.text());
    return (await answer.json()).order_id;
  }

  /** Reports something of an order, as the board's buttons do. */
  async report(order, event, more = {}) {
    const body = new URLSearchParams({ order, event, id: crypto.randomUUID(), ...more });
    const seen = await (await fetch(`${this.url}/orders/${order}`, { headers: this.shown })).json();
    body.set("seq", seen.events.length);
    const answer = await fetch(`${this.url}/report`, { method: "POST", headers: this.shown, body, redirect: "manual" });
    if (answer.status !== 303) throw new Error(await answer.text());
  }

  /** Asks until the text at an address is as it should be. */
  async says(path, expected) {
    const text = async () => (await fetch(this.url + path, { headers: this.shown })).text();
    for (const begun = Date.now(); !expected.test(await text());) {
      if (Date.now() - begun > PATIENCE) throw new Error(`${path} does not say ${expected}`);
    }
  }

  /** Takes the database's write lock, as a backup gone wrong would; answers how to let go. */
  async lock() {
    const shell = spawn("sqlite3", [join(this.folder, "data", "orders.db")], { stdio: ["pipe", "pipe", "inherit"] });
    this.shell = shell;
    shell.stdin.write(".timeout 10000\nBEGIN IMMEDIATE;\nSELECT 'locked';\n");
    await once(shell.stdout, "data");
    return async () => {
      const ended = once(shell, "exit");
      shell.stdin.end("ROLLBACK;\n");
      await ended;
    };
  }
}

export function launch() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: [
      "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
      "--disable-background-networking", "--disable-component-update", "--disable-sync",
    ],
  });
}

/** A page that remembers what went wrong on it: errors, refusals by the policy, dialogs. */
export async function open(browser, options = {}) {
  const context = await browser.newContext({ timezoneId: ZONE, locale: "en-GB", ...options });
  context.setDefaultTimeout(PATIENCE);
  const page = await context.newPage();
  page.trouble = [];
  page.on("pageerror", (error) => page.trouble.push(String(error)));
  page.on("dialog", async (dialog) => {
    page.trouble.push(`a dialog: ${dialog.message()}`);
    await dialog.dismiss();
  });
  page.on("console", (message) => {
    // A service that was killed answers nobody; that is no fault of the page.
    if (message.type() === "error" && !/net::|status of (401|403|404|409|429|503)/.test(message.text())) page.trouble.push(message.text());
  });
  return page;
}

/** Marks a document, so that a reload would show. */
export async function stay(page) {
  await page.evaluate(() => { window.stayed = true; });
  return () => page.evaluate(() => window.stayed === true);
}

const require = createRequire(import.meta.url);

/** What axe finds wrong with a page. */
export async function faults(page) {
  await page.evaluate(await readFile(require.resolve("axe-core/axe.min.js"), "utf8"));
  const { violations } = await page.evaluate(() => window.axe.run());
  return violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`);
}
