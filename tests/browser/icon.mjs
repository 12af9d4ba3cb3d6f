// Makes src/http/pages/assets/favicon.ico from board.svg: one picture of 32 by 32, for browsers and places that take no SVG.
import { readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { launch } from "./harness.mjs";

const SIDE = 32;
const assets = fileURLToPath(new URL("../../src/http/pages/assets/", import.meta.url));
const svg = await readFile(`${assets}board.svg`, "utf8");
const browser = await launch();
const page = await browser.newPage({ viewport: { width: SIDE, height: SIDE } });
await page.setContent(`<style>*{margin:0}svg{display:block;width:${SIDE}px}</style>${svg}`);
const png = await page.screenshot({ omitBackground: true });
await browser.close();

// The file's head, then the one entry of its directory: size, colours, where the PNG lies.
const head = Buffer.alloc(22);
head.writeUInt16LE(1, 2);
head.writeUInt16LE(1, 4);
head.writeUInt8(SIDE, 6);
head.writeUInt8(SIDE, 7);
head.writeUInt16LE(1, 10);
head.writeUInt16LE(32, 12);
head.writeUInt32LE(png.length, 14);
head.writeUInt32LE(head.length, 18);
await writeFile(`${assets}favicon.ico`, Buffer.concat([head, png]));
