/* Conditions as values: their JSON with every digit, and what a property's types let one ask of it. */
(function () {
  "use strict";

  const WORDS = {
    eq: "is",
    ne: "is not",
    in: "is one of",
    not_in: "is none of",
    gt: ">",
    gte: "≥",
    lt: "<",
    lte: "≤",
    contains: "contains",
    starts_with: "starts with",
    exists: "is",
  };
  const ORDERED = ["gt", "gte", "lt", "lte"];

  /* --- JSON with every digit: a number is {number: its text} ------------------------------------------------------- */

  const TOKEN = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;

  function parse(text) {
    return JSON.parse(text.replace(TOKEN, (token) => (token[0] === '"' ? token : JSON.stringify({ number: token }))));
  }

  function write(value) {
    if (Array.isArray(value)) return "[" + value.map(write).join(", ") + "]";
    if (value && typeof value === "object") {
      if (typeof value.number === "string") return value.number;
      const names = Object.keys(value).filter((key) => value[key] !== undefined);
      return "{" + names.map((key) => JSON.stringify(key) + ": " + write(value[key])).join(", ") + "}";
    }
    return JSON.stringify(value);
  }

  /* --- groups and conditions ------------------------------------------------------------------------------------- */

  function wordOf(group) {
    return "any" in group ? "any" : "all";
  }

  function isGroup(node) {
    const keys = node && typeof node === "object" && !Array.isArray(node) ? Object.keys(node) : [];
    return keys.length === 1 && (keys[0] === "all" || keys[0] === "any") && Array.isArray(node[keys[0]]);
  }

  function isCondition(node) {
    return Boolean(node) && typeof node === "object" && "property" in node && "operator" in node;
  }

  /* --- by type ----------------------------------------------------------------------------------------------------- */

  function kindsOf(types) {
    /* An array is asked for what it contains, and that may be of any kind. */
    const any = !types.length || types.includes("array");
    const kinds = [];
    if (any || types.includes("string")) kinds.push("text");
    if (any || types.includes("number") || types.includes("integer")) kinds.push("number");
    if (any || types.includes("boolean")) kinds.push("boolean");
    return kinds.length ? kinds : ["text"];
  }

  function kindOf(value, fallback) {
    const one = Array.isArray(value) ? value[0] : value;
    if (one && typeof one === "object" && "number" in one) return "number";
    if (typeof one === "boolean") return "boolean";
    return typeof one === "string" ? (fallback.includes("text") ? "text" : fallback[0]) : fallback[0];
  }

  /* A text that is no number is sent as text: the server says then what was expected. */
  function typed(text, kind) {
    const plain = text.trim();
    if (kind === "number" && /^-?\d+(\.\d+)?([eE][+-]?\d+)?$/.test(plain)) {
      return { number: plain.replace(/^(-?)0+(?=\d)/, "$1") };
    }
    if (kind === "boolean") return plain === "true";
    return text;
  }

  function shown(value) {
    if (value && typeof value === "object" && "number" in value) return value.number;
    return value === undefined || value === null ? "" : String(value);
  }

  function operatorsOf(types) {
    const has = (...names) => !types.length || names.some((one) => types.includes(one));
    const offered = [];
    if (has("string", "number", "integer", "boolean")) offered.push("eq", "ne", "in", "not_in");
    if (has("string", "number", "integer")) offered.push(...ORDERED);
    if (has("string", "array")) offered.push("contains");
    if (has("string")) offered.push("starts_with");
    return [...offered, "exists"];
  }

  window.tallybookConditions = {
    WORDS: WORDS,
    ORDERED: ORDERED,
    parse: parse,
    write: write,
    wordOf: wordOf,
    isGroup: isGroup,
    isCondition: isCondition,
    kindsOf: kindsOf,
    kindOf: kindOf,
    operatorsOf: operatorsOf,
    typed: typed,
    shown: shown,
  };
})();
