// The words of the console in the language of the page.

import de from "./console-words.de.js";
import en from "./console-words.en.js";
import es from "./console-words.es.js";
import zh from "./console-words.zh.js";
import { language } from "./words.js";

export const words = { en, de, es, zh }[language];
