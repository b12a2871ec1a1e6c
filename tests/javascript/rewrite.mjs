// Reads .codes files and writes what it read beside them, as NAME.again.
import {readFile, writeFile} from "node:fs/promises";

import {readCodes, readCoding, writeCodes} from "../../simvq_audio/demo/page/codes.js";
import {loadPrior} from "../../simvq_audio/demo/page/prior.js";

const [priorFile, ...files] = process.argv.slice(2);
const prior = await loadPrior(new Uint8Array(await readFile(priorFile)));
for (const file of files) {
  const bytes = new Uint8Array(await readFile(file));
  const given = readCoding(bytes).coding === "entropy" ? prior : null;
  await writeFile(`${file}.again`, writeCodes(readCodes(bytes, prior), given));
}
