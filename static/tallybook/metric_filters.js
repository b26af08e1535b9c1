/* The editor of conditions: rows and groups over the JSON text that is posted. Without it the text itself is edited. */
(function () {
  "use strict";

  const { WORDS, ORDERED, parse, write, wordOf, isGroup, isCondition, kindOf, typed, shown } = window.tallybookConditions;
  /* Groups in groups are edited to this depth; what lies deeper is kept as it is. */
  const DEPTH = 2;

  let root = null;
  let area = null;
  let tree = null;
  let properties = null;
  let mistake = null;

  function read() {
    const text = area.value.trim();
    if (!text) return { all: [] };
    try {
      const found = parse(text);
      if (isGroup(found)) return found;
      return found && typeof found === "object" && !Array.isArray(found) && !Object.keys(found).length ? { all: [] } : null;
    } catch {
      return null;
    }
  }

  /* The text says what the rows say. */
  function keep() {
    area.value = tree[wordOf(tree)].length ? write(tree) : "";
    area.dispatchEvent(new Event("input", { bubbles: true }));
  }

  function known(name) {
    return properties().find((one) => one.name === name);
  }

  function typesOf(name) {
    const own = known(name);
    return own ? own.types : [];
  }

  function kindsOf(name) {
    return window.tallybookConditions.kindsOf(typesOf(name));
  }

  function operatorsOf(name) {
    return window.tallybookConditions.operatorsOf(typesOf(name));
  }

  /* --- drawing ------------------------------------------------------------------------------------------------------- */

  function element(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function select(choices, value, label, changed) {
    const made = element("select", "tb-select");
    made.setAttribute("aria-label", label);
    choices.forEach(([own, text]) => made.add(new Option(text, own, false, own === value)));
    made.addEventListener("change", () => changed(made.value));
    return made;
  }

  function button(className, icon, text, deed) {
    const made = element("button", className, icon ? undefined : text);
    made.type = "button";
    if (icon) {
      made.append(element("span", "material-symbols-outlined", icon));
      made.setAttribute("aria-label", text);
      made.title = text;
    }
    made.addEventListener("click", deed);
    return made;
  }

  function redraw() {
    keep();
    draw();
  }

  function propertySelect(condition) {
    const names = properties().map((one) => one.name);
    const gone = names.includes(condition.property) ? [] : [condition.property];
    const choices = [...names.map((name) => [name, name]), ...gone.map((name) => [name, name ? name + " (not in the schema)" : "Choose one"])];
    return select(choices, condition.property, "Field", function (name) {
      condition.property = name;
      if (!operatorsOf(name).includes(condition.operator)) condition.operator = operatorsOf(name)[0];
      condition.value = emptyValue(condition);
      redraw();
    });
  }

  /* Not given yet: the server tells so, where an empty text would silently count nothing. */
  function emptyValue(condition) {
    if (condition.operator === "exists") return true;
    if (["in", "not_in"].includes(condition.operator)) return [];
    return kindsOf(condition.property)[0] === "boolean" && !ORDERED.includes(condition.operator) ? true : undefined;
  }

  function operatorSelect(condition) {
    const offered = operatorsOf(condition.property);
    const all = offered.includes(condition.operator) ? offered : [...offered, condition.operator];
    const choices = all.map((name) => [name, name === "exists" ? "is there or not" : WORDS[name] || name]);
    return select(choices, condition.operator, "Operator", function (name) {
      const many = (one) => ["in", "not_in"].includes(one);
      const before = condition.operator;
      condition.operator = name;
      if (name === "exists" || before === "exists") condition.value = emptyValue(condition);
      else if (many(name) && !many(before)) condition.value = condition.value === undefined ? [] : [condition.value];
      else if (!many(name) && many(before)) condition.value = condition.value[0];
      redraw();
    });
  }

  function entryOf(condition, kind) {
    const own = known(condition.property);
    const many = Array.isArray(condition.value);
    if (kind === "boolean" && !many) {
      return select([["true", "true"], ["false", "false"]], shown(condition.value), "Value", function (value) {
        condition.value = value === "true";
        keep();
      });
    }
    const entry = element(many ? "textarea" : "input", "tb-entry");
    entry.setAttribute("aria-label", many ? "Values, one a line" : "Value");
    entry.placeholder = many ? "one a line" : kind === "number" ? "0" : "text";
    entry.value = many ? condition.value.map(shown).join("\n") : shown(condition.value);
    entry.autocomplete = "off";
    entry.spellcheck = false;
    if (many) entry.rows = 2;
    if (!many && kind === "number") entry.inputMode = "decimal";
    if (!many && own && own.values.length) entry.setAttribute("list", listOf(own));
    entry.addEventListener("input", function () {
      const lines = entry.value.split("\n").filter((line) => line !== "");
      condition.value = many ? lines.map((line) => typed(line, kind)) : typed(entry.value, kind);
      keep();
    });
    return entry;
  }

  /* What the schema lists is offered while typing. */
  function listOf(own) {
    const id = "tb-values-" + properties().indexOf(own);
    const list = document.getElementById(id) || element("datalist");
    list.id = id;
    list.replaceChildren(...own.values.map((value) => new Option(value)));
    document.body.append(list);
    return id;
  }

  function valuesOf(condition) {
    const place = element("div", "tb-values");
    if (condition.operator === "exists") {
      place.append(
        select([["true", "there"], ["false", "not there, or null"]], String(condition.value), "Value", function (value) {
          condition.value = value === "true";
          keep();
        }),
      );
      return place;
    }
    const kinds = kindsOf(condition.property).filter((kind) => !ORDERED.includes(condition.operator) || kind !== "boolean");
    const kind = condition.kind || kindOf(condition.value, kinds);
    const ofText = condition.operator === "starts_with" || (condition.operator === "contains" && !typesOf(condition.property).includes("array"));
    if (kinds.length > 1 && !ofText) {
      const names = { text: "text", number: "number", boolean: "true/false" };
      const chosen = select(kinds.map((one) => [one, names[one]]), kind, "Kind of value", function (value) {
        const list = Array.isArray(condition.value);
        const given = list ? condition.value : [condition.value].filter((one) => one !== undefined);
        const texts = given.map((one) => typed(shown(one), value));
        condition.value = list ? texts : value === "boolean" ? texts[0] === true : texts[0];
        remember(condition, value);
        redraw();
      });
      chosen.classList.add("tb-kind");
      place.append(chosen);
    }
    place.prepend(entryOf(condition, kind));
    return place;
  }

  /* Of the editor, not of the definition: an empty value has no kind of its own. */
  function remember(condition, kind) {
    Object.defineProperty(condition, "kind", { value: kind, enumerable: false, configurable: true });
  }

  function rowOf(condition, drop, place) {
    const row = element("div", "tb-condition");
    row.append(propertySelect(condition), operatorSelect(condition), valuesOf(condition), button("tb-drop", "close", "Remove this condition", drop));
    row.dataset.tbPlace = place;
    return row;
  }

  function deepOf(node, drop) {
    const row = element("div", "tb-deep");
    row.append(element("pre", "tb-pre", write(node)), button("tb-drop", "close", "Remove this group", drop));
    return row;
  }

  function groupOf(group, level, place, drop) {
    const word = wordOf(group);
    const members = group[word];
    const frame = element("div", "tb-group");
    const head = element("div", "tb-group-head");
    const words = [["all", "all"], ["any", "any"]];
    head.append(
      document.createTextNode(level === 1 ? "Records count where" : "where"),
      select(words, word, "How conditions go together", function (value) {
        delete group[word];
        group[value] = members;
        redraw();
      }),
      document.createTextNode("of these hold:"),
    );
    if (drop) head.append(button("tb-drop", "close", "Remove this group", drop));
    frame.append(head);
    members.forEach(function (member, index) {
      const own = (place ? place + "." : "") + word + "[" + index + "]";
      const remove = function () {
        members.splice(index, 1);
        /* A group goes with the last of its conditions: an empty one would mean something else. */
        if (!members.length && drop) drop();
        else redraw();
      };
      if (isGroup(member) && level < DEPTH) frame.append(groupOf(member, level + 1, own, remove));
      else if (isCondition(member)) frame.append(rowOf(member, remove, own));
      else frame.append(deepOf(member, remove));
    });
    frame.append(moreOf(members, level));
    return frame;
  }

  function starting() {
    const first = properties()[0];
    const condition = { property: first ? first.name : "", operator: "eq", value: undefined };
    condition.operator = operatorsOf(condition.property)[0];
    condition.value = emptyValue(condition);
    return condition;
  }

  function moreOf(members, level) {
    const more = element("div", "tb-more");
    more.append(
      button("", null, "+ Add condition", function () {
        members.push(starting());
        redraw();
      }),
    );
    if (level < DEPTH) {
      more.append(
        button("", null, "+ Add group", function () {
          members.push({ any: [starting()] });
          redraw();
        }),
      );
    }
    return more;
  }

  function emptyOf() {
    const place = element("div");
    place.append(element("p", "tb-muted", "Every record counts."));
    place.append(moreOf(tree[wordOf(tree)], 1));
    return place;
  }

  function draw() {
    if (!root) return;
    root.replaceChildren();
    if (!properties().length && tree && !tree[wordOf(tree)].length) {
      root.append(element("p", "tb-muted", "Every record counts. Choose a usage event with properties to say which."));
      return;
    }
    if (!tree) {
      root.append(element("p", "tb-errors", "The JSON below is not a condition that can be shown in rows."));
      return;
    }
    root.append(tree[wordOf(tree)].length ? groupOf(tree, 1, "", null) : emptyOf());
    mark();
  }

  /* The server names the place: "at all[0].any[1].value: …". */
  function findMistake(messages) {
    const found = (messages || []).map((text) => /^at ((?:all|any)[^:]*): (.*)$/is.exec(text)).find(Boolean);
    mistake = found ? { place: found[1], text: found[2].charAt(0).toUpperCase() + found[2].slice(1) } : null;
  }

  function fold(field) {
    const details = element("details", "tb-as-json");
    details.append(element("summary", "", "As JSON"));
    const label = field.querySelector("label");
    area.before(details);
    details.append(area);
    const help = field.querySelector(".tb-help");
    if (help) details.append(help);
    details.open = !tree;
    label.after(root);
  }

  function start(place, ownProperties) {
    area = place.querySelector("textarea");
    properties = ownProperties;
    root = element("div", "tb-conditions");
    tree = read();
    findMistake(Array.from(place.querySelectorAll(".tb-errors li")).map((line) => line.textContent));
    fold(place.querySelector(".tb-field"));
    draw();
    area.addEventListener("change", function () {
      tree = read();
      draw();
    });
    document.addEventListener("tallybook:previewed", function (event) {
      findMistake(event.detail.errors.filters);
      mark();
    });
  }

  /* The mistake at its row; in place, because somebody may be typing there. */
  function mark() {
    root.querySelectorAll(".tb-condition > .tb-errors").forEach((line) => line.remove());
    root.querySelectorAll(".tb-faulty").forEach((row) => row.classList.remove("tb-faulty"));
    if (!mistake) return;
    const rows = Array.from(root.querySelectorAll("[data-tb-place]"));
    const row = rows.find((one) => mistake.place === one.dataset.tbPlace || mistake.place.startsWith(one.dataset.tbPlace + "."));
    if (!row) return;
    row.classList.add("tb-faulty");
    const entry = row.querySelector(".tb-entry");
    const empty = mistake.place.endsWith(".value") && entry && !entry.value.trim();
    row.append(element("p", "tb-errors", empty ? "Enter a value." : mistake.text));
  }

  window.tallybookFilters = { start: start, draw: draw };
})();
