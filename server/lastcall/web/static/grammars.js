// What tokens code is made of, language by language, for the tokenizer: the first rule that matches somewhere wins.
// Those that come with it take seconds for 20,000 blanks in a row. Each rule here takes a time linear in the text: a run of
// characters is tried from its beginning only, and what is not closed goes on to the end.

const all = (text, flags = "g") => new RegExp(`\\b(?:${text.trim().replaceAll(/\s+/g, "|")})\\b`, flags);

const number = { type: "num", match: /\b\d[\w.]*/g };
const string = { type: "str", match: /"(?:\\[^]|[^"\\\n])*"?|'(?:\\[^]|[^'\\\n])*'?/g };
const template = { type: "str", match: /`(?:\\[^]|[^`\\])*`?/g };
const call = { type: "func", match: /\b[a-z_]\w*(?=\()/gi };
const name = { type: "class", match: /\b[A-Z]\w*/g };
const constant = { type: "bool", match: all("true false null undefined nil nullptr None True False NaN") };
const slashes = { type: "cmnt", match: /\/\/.*|\/\*[^]*?(?:\*\/|$)/g };
const hash = { type: "cmnt", match: /(?<!\S)#.*/g };

const keywords = (text, flags) => ({ type: "kwd", match: all(text, flags) });
const common = [number, constant];
const key = (end) => ({ type: "var", match: new RegExp(`(?<![\\w.-])[\\w.-]+(?=${end})`, "g") });

const script = keywords(`
  abstract as async await break case catch class const continue debugger declare default delete do else enum export
  extends finally for from function get if implements import in instanceof interface keyof let new of private protected
  public readonly return set static super switch this throw try type typeof var void while with yield`);
// Java, C, C++, C#, Go, Kotlin, Swift, PHP and their like, all at once.
const braces = keywords(`
  abstract as async auto await base bool boolean break byte case catch chan char class const constexpr continue data def
  default defer delete do double echo else elseif enum explicit export extends extern final finally float fn for foreach
  friend fun func function go goto guard if implements implicit import in include inline inout instanceof int interface
  internal is lateinit let lock long map match mutable namespace native new object operator out override package params
  private protected protocol public range readonly record ref register return sealed select self short signed sizeof
  static string struct suspend super switch synchronized template this throw throws trait try type typedef typename
  union unsigned use using val var virtual void volatile when where while yield`);
const rust = keywords(`
  as async await break const continue crate dyn else enum extern fn for if impl in let loop match mod move mut pub ref
  return self Self static struct super trait type unsafe use where while`);
const python = keywords(`
  and as assert async await break class continue def del elif else except finally for from global if import in is lambda
  match nonlocal not or pass raise return try while with yield`);
const ruby = keywords(`
  alias and begin break case class def do else elsif end ensure for if in module next not or redo require rescue retry
  return self super then undef unless until when while yield`);
const shell = keywords(`
  case cd do done echo elif else esac exit export fi for function if in local read return set shift sudo then until
  while`);
const sql = keywords(
  `add all alter and any as asc begin between by cascade case check column commit conflict constraint create cross default
  delete desc distinct drop else end exists explain foreign from full function grant group having if in index inner insert
  into is join key lateral left like limit materialized not null offset on or order outer over partition primary references
  returning revoke right rollback select set table then trigger truncate union unique update using values view when where
  window with`,
  "gi",
);

// A string that a colon follows is a key. sub: a rule for the whole of what matched.
const keyOrString = {
  match: /"(?:\\[^]|[^"\\\n])*"?(?:\s*:)?/g,
  sub: (text) => ({ type: text.endsWith(":") ? "var" : "str", sub: [] }),
};

const RULES = {
  "bash console sh shell zsh": [
    hash,
    { type: "str", match: /"(?:\\[^]|[^"\\])*"?|'[^']*'?/g },
    { type: "var", match: /\$(?:\w+|\{[^}\n]*\}?)|(?<=\s)--?[\w-]+/g },
    shell,
    number,
  ],
  "c c# c++ cpp cs csharp dart go golang h hpp java kotlin kt php scala swift": [
    slashes,
    { type: "kwd", match: /^[ \t]*#[ \t]*\w+/gm },
    string,
    template,
    { type: "var", match: /\$\w+/g },
    braces,
    ...common,
    call,
    name,
  ],
  "css less scss": [
    slashes,
    string,
    { type: "kwd", match: /@[\w-]+/g },
    key("\\s*:"),
    { type: "num", match: /#[\da-f]{3,8}\b|\b\d[\w.%]*/gi },
    { type: "func", match: /(?<![\w-])[\w-]+(?=\()/g },
  ],
  "diff patch": [
    { type: "kwd", match: /^(?:@@|diff |index |\+\+\+ |--- ).*/gm },
    { type: "insert", match: /^\+.*/gm },
    { type: "deleted", match: /^-.*/gm },
  ],
  "docker dockerfile ini toml": [
    hash,
    { type: "kwd", match: /^\[.*|^[A-Z]+\b/gm },
    string,
    key("\\s*="),
    ...common,
  ],
  "html svg vue xml": [
    { type: "cmnt", match: /<!--[^]*?(?:-->|$)/g },
    { type: "kwd", match: /<[!?/]?[\w:.-]+|[?/]?>/g },
    { type: "str", match: /(?<==)(?:"[^"]*"?|'[^']*'?)/g },
    key("="),
    { type: "num", match: /&#?\w{1,8};/g },
  ],
  "javascript js jsx mjs ts tsx typescript": [slashes, string, template, script, ...common, call, name],
  "json json5 jsonc": [slashes, keyOrString, ...common],
  "py python python3": [
    hash,
    { type: "str", match: /("""|''')(?:\\[^]|(?!\1)[^\\])*(?:\1)?/g },
    string,
    { type: "var", match: /@\w+/g },
    python,
    ...common,
    call,
    name,
  ],
  "rb ruby": [hash, string, { type: "var", match: /[@:]\w+/g }, ruby, ...common, call, name],
  "rs rust": [
    slashes,
    { type: "var", match: /'[a-z_]\w*\b(?!')/g },
    { type: "str", match: /"(?:\\[^]|[^"\\])*"?|'(?:\\.|[^'\\\n])'/g }, // a quote may also begin a lifetime
    rust,
    ...common,
    call,
    name,
  ],
  "pgsql postgres postgresql sql sqlite": [
    { type: "cmnt", match: /--.*|\/\*[^]*?(?:\*\/|$)/g },
    string,
    sql,
    ...common,
    call,
  ],
  "yaml yml": [hash, string, key(":(?:\\s|$)"), ...common],
};

/** The rules of each language, by each of its names. */
export const grammars = new Map(
  Object.entries(RULES).flatMap(([names, rules]) => names.split(" ").map((each) => [each, rules])),
);
