// Markdown as elements: the tokens of a parser, each of a kind that is listed here; text otherwise, never markup.

import "./markdown-it.js"; // it sets globalThis.markdownit
import { copyButton } from "./copy.js";
import { words } from "./words.js";

const CHARS_MAX = 100_000; // beyond them the text is shown as it is: parsing would take too long
const ELEMENTS = new Set(
  "p ul ol li blockquote table thead tbody tr th td strong em s hr br h3 h4 h5 h6".split(" "),
);
const HEADINGS = { h1: "h3", h2: "h4", h3: "h5", h4: "h6", h5: "h6", h6: "h6" }; // below those of the page
const LINKS = new Set(["http:", "https:", "mailto:"]);

const parser = globalThis.markdownit("default", { html: false, linkify: true, breaks: true });
const sources = new WeakMap(); // element of a block -> the text that it was made from

/** Shows a text. growing: more of it will come, and what stands before stays as it is. */
export function showMarkdown(element, text, { growing = false } = {}) {
  if (text.length > CHARS_MAX) element.textContent = text;
  else showBlocks(element, blocksOf(text), growing);
}

// Each block is one element. What is shown already stays; once a text is complete only code does: the end of a text can
// change what stands before it, such as the address of a link.
function showBlocks(element, blocks, growing) {
  for (const [place, { source, tokens }] of blocks.entries()) {
    const shown = element.childNodes[place];
    if (shown && sources.get(shown) === source && (growing || tokens[0].type === "fence")) continue;
    const holder = document.createDocumentFragment();
    build(tokens, holder);
    sources.set(holder.firstChild, source);
    if (shown) shown.replaceWith(holder);
    else element.append(holder);
  }
  while (element.childNodes.length > blocks.length) element.lastChild.remove();
  for (const block of [...element.children].slice(0, growing ? -1 : undefined)) colourCode(block);
}

// Only what is complete: the last block of a text that grows may go on.
function colourCode(block) {
  for (const element of block.querySelectorAll("code[data-language]")) {
    const { language } = element.dataset;
    delete element.dataset.language;
    import("./code.js").then(({ colour }) => colour(element, language)).catch(() => {}); // without it, code is plain
  }
}

function blocksOf(text) {
  const lines = text.split("\n");
  const blocks = [];
  let tokens = [];
  for (const token of parser.parse(text, {})) {
    tokens.push(token);
    if (token.level > 0 || token.nesting === 1) continue;
    const [from, to] = tokens[0].map ?? [0, lines.length];
    blocks.push({ source: lines.slice(from, to).join("\n"), tokens });
    tokens = [];
  }
  return blocks;
}

function build(tokens, root) {
  const open = [root];
  for (const token of tokens) {
    if (token.hidden) continue; // the paragraph of an item in a tight list
    if (token.type === "inline") build(token.children, open.at(-1));
    else if (token.nesting === 0) open.at(-1).append(leaf(token));
    else if (token.nesting === -1) open.pop();
    else {
      const [outer, inner] = opened(token);
      open.at(-1).append(outer);
      open.push(inner);
    }
  }
}

function opened(token) {
  if (token.tag === "a") return twice(link(token.attrGet("href")));
  if (token.tag === "table") return table();
  const tag = HEADINGS[token.tag] ?? token.tag;
  const element = document.createElement(ELEMENTS.has(tag) ? tag : "span");
  if (tag === "ol" && token.attrGet("start")) element.start = token.attrGet("start");
  const align = /left|right|center/.exec(token.attrGet("style") ?? "");
  if (align) element.dataset.align = align[0];
  return twice(element);
}

function twice(element) {
  return [element, element];
}

// Wide tables scroll in a frame of their own, which the keyboard reaches.
function table() {
  const frame = document.createElement("div");
  frame.className = "wide-table";
  frame.tabIndex = 0;
  const inner = document.createElement("table");
  frame.append(inner);
  return [frame, inner];
}

function leaf(token) {
  if (token.type === "fence" || token.type === "code_block") return code(token.content, token.info);
  if (token.type === "code_inline") return withText("code", token.content);
  if (token.type === "image") return picture(token);
  if (token.type === "softbreak" || token.type === "hardbreak") return document.createElement("br");
  if (token.type === "hr") return document.createElement("hr");
  return document.createTextNode(token.content);
}

function code(text, info) {
  const figure = document.createElement("figure");
  figure.className = "code";
  const language = info.trim().split(/\s/)[0].slice(0, 40);
  const caption = document.createElement("figcaption");
  caption.append(withText("span", language), copyButton(() => text, words.copyCode));
  const block = document.createElement("pre");
  block.tabIndex = 0; // it may scroll sideways
  const inner = withText("code", text.replace(/\n$/, ""));
  if (language) inner.dataset.language = language;
  block.append(inner);
  figure.append(caption, block);
  return figure;
}

// No picture is loaded: it would tell its host who reads, and when.
function picture(token) {
  const element = link(token.attrGet("src"));
  element.textContent = token.content || token.attrGet("src");
  return element;
}

function link(address) {
  if (!isSafe(address)) return document.createElement("span");
  const element = document.createElement("a");
  element.href = address;
  element.target = "_blank";
  element.rel = "noopener noreferrer nofollow";
  return element;
}

function isSafe(address) {
  try {
    return LINKS.has(new URL(address).protocol);
  } catch {
    return false; // relative, or no address at all
  }
}

function withText(tag, text) {
  const element = document.createElement(tag);
  element.textContent = text;
  return element;
}
