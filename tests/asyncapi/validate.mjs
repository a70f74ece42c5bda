// Reads an AsyncAPI document on stdin. Prints what AsyncAPI's own parser finds wrong with it, and what the YAML says, as JSON.

import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";
import yaml from "js-yaml";

const SEVERITIES = ["error", "warning", "information", "hint"];

const text = readFileSync(0, "utf8");
const { document, diagnostics } = await new Parser().parse(text);
const problems = diagnostics.map(({ severity, path, message, code }) => ({
  severity: SEVERITIES[severity],
  at: path.join("/"),
  problem: `${code}: ${message}`,
}));
const read = document ? yaml.load(text) : null;
process.stdout.write(JSON.stringify({ valid: document !== undefined, problems, read }));
