// What runs on a device with Node: one JSON array of calls in, one JSON array of outcomes out.
//
// in     [{"call": "listFiles", "with": {"repo": "acme/tiny"}}, …]
// out    [{"value": […]}, {"error": "…"}]

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";

const [, , modules, cache] = process.argv;
const load = (name) => import(`${modules}/node_modules/${name}`);

async function collect(items) {
  const all = [];
  for await (const item of items) all.push(item);
  return all;
}

async function digest(blob) {
  if (blob === null) return null;
  const bytes = Buffer.from(await blob.arrayBuffer());
  return { size: bytes.length, sha256: createHash("sha256").update(bytes).digest("hex") };
}

const calls = {
  async listFiles(given) {
    const { listFiles } = await load("@huggingface/hub/dist/index.mjs");
    return (await collect(listFiles(given))).filter((one) => one.type === "file").map((one) => one.path);
  },
  async snapshotDownload(given) {
    const { snapshotDownload } = await load("@huggingface/hub/dist/index.mjs");
    return snapshotDownload({ ...given, cacheDir: cache });
  },
  async downloadFile(given) {
    const { downloadFile } = await load("@huggingface/hub/dist/index.mjs");
    return digest(await downloadFile(given));
  },
  async fileExists(given) {
    const { fileExists } = await load("@huggingface/hub/dist/index.mjs");
    return fileExists(given);
  },
  async tokenize({ repo, hubUrl, text, ...options }) {
    const { AutoTokenizer, env } = await load("@huggingface/transformers/dist/transformers.node.mjs");
    env.remoteHost = `${hubUrl}/`;
    env.cacheDir = cache;
    env.allowLocalModels = false;
    const tokenizer = await AutoTokenizer.from_pretrained(repo, options);
    return tokenizer.encode(text);
  },
};

const outcomes = [];
for (const { call, with: given } of JSON.parse(readFileSync(0, "utf8"))) {
  try {
    outcomes.push({ value: await calls[call](given) });
  } catch (e) {
    outcomes.push({ error: `${e?.name}: ${e?.message}` });
  }
}
console.log(JSON.stringify(outcomes));
