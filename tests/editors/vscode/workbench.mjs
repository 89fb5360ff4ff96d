/**
 * The workbench as a person uses it: what to click and where to look, in VS Code 1.139.
 *
 * All selectors are here. A method returns when the workbench shows the effect, or fails at a deadline. Keys go to
 * whatever has the focus at that moment, and the workbench moves the focus on timers of its own: so no key is taken
 * for its effect. What shows no effect is done again, as a person would, until the deadline.
 */
import { ANSWER_MS } from "../support.mjs";

/** A cold workbench loads its modules one by one. */
const LOAD_MS = 120_000;
/** The editor shows a hover after 0.3 s of rest: on a machine that is busy with other things it takes seconds. */
const HOVER_MS = 5_000;
/** How long a try waits for its effect before it is made again: ten times what a busy machine was seen to take. */
const TRY_MS = 5_000;
/** Rows of each place that a failed wait tells of. */
const SEEN_MAX = 8;
/** How long all tries of one action may take together. */
const TRIES_MS = 2 * ANSWER_MS;

export class Workbench {
  constructor(page) {
    this.page = page;
    /** Rows of the Debug Console that are on the screen; the list is virtual. */
    this.consoleRows = page.locator(".repl .monaco-list-row");
    this.variableRows = page.locator(".debug-variables .monaco-list-row");
    this.callStackRows = page.locator(".debug-call-stack .monaco-list-row");
    this.statusBar = page.locator(".part.statusbar");
    this.codeLenses = page.locator(".codelens-decoration");
    this.fleetRows = page.locator('.pane:has(> .pane-header[aria-label^="Fleet"]) .monaco-list-row');
    /** What is drawn in the page of the timeline: a frame in a frame. */
    this.timeline = page.frameLocator("iframe.webview.ready").frameLocator("iframe#active-frame");
    this.marks = this.timeline.locator(".mark");
    this.hitRows = this.timeline.locator("#list .hit");
  }

  async load(url) {
    await this.page.goto(url, { timeout: LOAD_MS });
    await this.page
      .locator(".monaco-workbench .explorer-folders-view .monaco-list-row")
      .first()
      .waitFor({ timeout: LOAD_MS });
    // What extensions contribute is there later than the workbench: the command palette does not wait for it.
    await this.page.locator('.activitybar a.action-label[aria-label="RipTrace"]').waitFor({ timeout: LOAD_MS });
  }

  /** Opens a file of the workspace by the quick open box. */
  async openFile(file) {
    const name = file.split("/").at(-1);
    const tab = this.page.locator(`.tab.active[data-resource-name="${name}"]`);
    await this.#until(`${file} is opened`, async () => {
      const row = this.page.locator(`.quick-input-list .monaco-list-row.focused:has-text("${name}")`);
      return (await this.#choose("Control+P", file, row)) && (await this.#seen(tab));
    });
    await this.page.locator(".editor-instance .view-lines .view-line").first().waitFor({ timeout: ANSWER_MS });
  }

  /** Puts the cursor on a line, which also brings it onto the screen. */
  async goToLine(line) {
    await this.#until(`the cursor is on line ${line}`, async () => {
      return (await this.#choose("Control+G", `:${line}`)) && (await this.#seen(this.#cursorLine(line)));
    });
  }

  lineNumber(line) {
    return this.page.locator(`.editor-instance .margin-view-overlays .line-numbers:text-is("${line}")`).first();
  }

  #cursorLine(line) {
    return this.page.locator(
      `.editor-instance .margin-view-overlays .line-numbers.active-line-number:text-is("${line}")`,
    );
  }

  /**
   * Sets a breakpoint by a click in the glyph margin, which is left of the line number. The text moves while the
   * workbench is still settling (a code lens takes a line of its own): a sign beside another line is taken out again.
   */
  async clickGutter(line) {
    const sign = this.glyph("debug-breakpoint").first();
    await this.#until(`a breakpoint is on line ${line}`, async () => {
      const aim = await this.#middle(this.lineNumber(line));
      await this.page.mouse.click(aim.left - 8, aim.y);
      await sign.waitFor({ timeout: ANSWER_MS });
      const [number, set] = [await this.#middle(this.lineNumber(line)), await this.#middle(sign)];
      if (Math.abs(number.y - set.y) < number.height / 2) return true;
      await sign.click({ timeout: ANSWER_MS });
      await sign.waitFor({ state: "detached", timeout: ANSWER_MS });
      return false;
    });
  }

  async #middle(locator) {
    const { x, y, height } = await locator.boundingBox({ timeout: ANSWER_MS });
    return { left: x, y: y + height / 2, height };
  }

  /**
   * Rests the pointer on a sign in the gutter until its hover shows this text. The editor may still be scrolling, and
   * then the pointer rests on something else: it is moved away and back until the hover is there.
   * `text` is a pattern that takes any white space: the hover shows no-break spaces.
   */
  async hoverGlyph(kind, text) {
    const hover = this.page.locator(".monaco-hover:not(.hidden)", { hasText: text }).first();
    await this.#until(`the sign ${kind} in the gutter says ${text}`, async () => {
      await this.page.mouse.move(0, 0);
      await this.glyph(kind).first().hover({ timeout: ANSWER_MS });
      return this.#seen(hover, "visible", HOVER_MS);
    });
  }

  /** A breakpoint's sign in the gutter; `kind` is VS Code's icon: `debug-breakpoint`, `debug-breakpoint-log`, ... */
  glyph(kind) {
    return this.page.locator(`.editor-instance .glyph-margin-widgets .codicon-${kind}`);
  }

  /** Runs a command of the palette. It is run once: what the command does must be waited for. */
  async runCommand(title) {
    const row = this.page.locator(`.quick-input-list .monaco-list-row.focused:has-text("${title}")`);
    await this.#until(`"${title}" is run`, () => this.#choose("F1", `>${title}`, row));
  }

  /** Runs a command of the palette that goes on with a list to choose from, which has this row. */
  async runPicker(title, row) {
    const command = this.page.locator(`.quick-input-list .monaco-list-row.focused:has-text("${title}")`);
    const input = this.page.locator(".quick-input-box input");
    await this.#until(`"${title}" offers its list`, async () => {
      await this.page.keyboard.press("F1");
      if (!(await this.#seen(input))) return false;
      await input.fill(`>${title}`, { timeout: ANSWER_MS });
      if (!(await this.#seen(command.first(), "visible", ANSWER_MS))) return false;
      await this.page.keyboard.press("Enter");
      // A view that opens or closes late takes the focus, and the list is gone: then it is asked for again.
      return this.#seen(this.pickRow(row));
    });
  }

  /** A row of the list that is open, by what a screen reader says of it, from its beginning. */
  pickRow(label) {
    return this.page.locator(`.quick-input-list .monaco-list-row[aria-label^="${label}"]`).first();
  }

  /** Types into the list that is open until it has this row in front, and takes it. The next list may be open then. */
  async takePickRow(text, row) {
    await this.page.locator(".quick-input-box input").fill(text, { timeout: ANSWER_MS });
    const first = this.pickRow(row).and(this.page.locator(".focused"));
    await first.waitFor({ timeout: ANSWER_MS });
    await this.page.keyboard.press("Enter");
    await first.waitFor({ state: "hidden", timeout: ANSWER_MS });
  }

  /**
   * Opens the quick input, types, waits until the list offers `row`, and takes it. Returns whether the box closed.
   * Without `row`, what was typed is taken as it is.
   */
  async #choose(key, text, row) {
    const input = this.page.locator(".quick-input-box input");
    await this.page.keyboard.press(key);
    if (!(await this.#seen(input))) return false;
    await input.fill(text, { timeout: ANSWER_MS });
    if (row && !(await this.#seen(row.first(), "visible", ANSWER_MS))) return false;
    await this.page.keyboard.press("Enter");
    return this.#seen(this.page.locator(".quick-input-widget"), "hidden");
  }

  /**
   * A logpoint on the line of the cursor. The box for its message gets the focus on a timer, and the command palette
   * gives it back to the text of the file when it closes: nothing is typed before the box has the focus, and nothing
   * confirmed before the box shows what was typed.
   */
  async addLogpoint(message) {
    await this.runCommand("Debug: Add Logpoint...");
    const box = this.page.locator(".breakpoint-widget .inputContainer");
    await box.waitFor({ timeout: ANSWER_MS });
    const focused = box.locator(".monaco-editor.focused");
    const shown = box.locator(".view-lines");
    await this.#until(`the logpoint '${message}' is confirmed`, async () => {
      if (!(await this.#seen(focused))) {
        await box.click({ timeout: ANSWER_MS });
        return false;
      }
      if ((await textOf(shown)) !== message) {
        // Replaces what an earlier try has left there.
        await this.page.keyboard.press("Control+A");
        await this.page.keyboard.insertText(message);
        const typed = this.page.waitForFunction(
          ([selector, expected]) =>
            document.querySelector(selector)?.textContent.replaceAll("\u00a0", " ") === expected,
          [".breakpoint-widget .inputContainer .view-lines", message],
          { timeout: TRY_MS },
        );
        if (!(await inTime(typed)) || (await focused.count()) === 0) return false;
      }
      await this.page.keyboard.press("Enter");
      return this.#seen(box, "detached");
    });
  }

  /** Starts debugging as the key does; returns when the workbench says that it debugs. */
  async startDebugging() {
    await this.page.keyboard.press("F5");
    const debugs = this.page.locator(".part.statusbar.debugging, .debug-call-stack .monaco-list-row");
    await debugs.first().waitFor({ timeout: TRIES_MS });
  }

  /** A button of the debug toolbar, which is docked: `step-back`, `reverse-continue`, `continue`, `disconnect`, ... */
  debugButton(name) {
    return this.page.locator(`a.action-label.codicon-debug-${name}`).first();
  }

  /** Presses a button as soon as the debugger allows it. */
  async pressDebugButton(name) {
    const enabled = this.page.locator(
      `.action-item:not(.disabled) > a.action-label.codicon-debug-${name}:not(.disabled)`,
    );
    await enabled.first().click({ timeout: ANSWER_MS });
  }

  /**
   * What the Call Stack says of the stopped thread: the `description` of the adapter's `stopped` event. It stands in
   * the header of the pane while there is one thread, and beside each thread otherwise. Waits until it matches.
   */
  async stopDescription(pattern, milliseconds = ANSWER_MS) {
    try {
      const found = await this.page.waitForFunction(
        ([source, flags]) => {
          const pane = document.querySelector(".debug-call-stack")?.closest(".pane");
          return new RegExp(source, flags).exec(pane?.textContent ?? "")?.[0];
        },
        [pattern.source, pattern.flags],
        { timeout: milliseconds, polling: 50 },
      );
      return await found.jsonValue();
    } catch (error) {
      if (error.name !== "TimeoutError") throw error;
      const pane = this.page.locator(".pane:has(.debug-call-stack)");
      throw new Error(`the Call Stack does not say ${pattern}, but: ${await pane.allTextContents()}`);
    }
  }

  /** A breakpoint in the Breakpoints pane; `kind` as for `glyph`. */
  breakpointRow(kind, line) {
    return this.page.locator(
      `.debug-breakpoints .monaco-list-row:has(.codicon-${kind}):has(.line-number:text-matches("^${line}(:|$)"))`,
    );
  }

  /**
   * What the editor shows on a line of the source beyond its own text: the inlay hints. Waits until there is some.
   * `source` is the line's text in the file.
   */
  async inlayHintOn(line, source, milliseconds) {
    await this.lineNumber(line).waitFor({ timeout: ANSWER_MS });
    const found = await this.page.waitForFunction(
      ({ line, source }) => {
        const editor = document.querySelector(".editor-instance");
        const number = [...editor.querySelectorAll(".margin-view-overlays .line-numbers")].find(
          (e) => e.textContent.trim() === line,
        );
        const top = number?.closest(".margin-view-overlays > div")?.style.top;
        const row = [...editor.querySelectorAll(".view-lines > .view-line")].find((e) => e.style.top === top);
        const shown = row?.textContent.replaceAll("\u00a0", " ").trim() ?? "";
        // The hint stands somewhere in the line: what is left after the common front and the common end.
        let front = 0;
        while (front < source.length && shown[front] === source[front]) front += 1;
        let end = 0;
        while (end < source.length - front && shown.at(-1 - end) === source.at(-1 - end)) end += 1;
        const hint = shown.slice(front, shown.length - end).trim();
        return front + end === source.length && hint !== "" ? hint : undefined;
      },
      { line: String(line), source: source.trim().replaceAll("\t", " ") },
      { timeout: milliseconds, polling: 100 },
    );
    return found.jsonValue();
  }

  /** Opens every node of a tree that these rows stand for and that is closed. A node that opens slowly is waited for. */
  async #openAll(rows) {
    const closed = rows.and(this.page.locator('[aria-expanded="false"]'));
    await this.#until("the nodes of the tree are open", async () => {
      for (let left = await closed.count(); left > 0; left = await closed.count()) {
        // The tree may be drawn anew at any moment; then there is nothing to click on, and the rows are counted again.
        const clicked = closed.first().locator(".monaco-tl-twistie").click({ timeout: TRY_MS });
        if (!(await inTime(clicked)) || !(await this.#seen(closed.nth(left - 1), "detached"))) return false;
      }
      return true;
    });
  }

  async showDebugConsole() {
    const console = this.page.locator(".repl");
    await this.#until("the Debug Console is shown", async () => {
      // The key hides a console that has the focus.
      if (!(await console.isVisible())) await this.page.keyboard.press("Control+Shift+Y");
      return this.#seen(console);
    });
  }

  /** A row of the Debug Console by its text and the source link at its right end. */
  consoleRow(text, link) {
    return this.page.locator(`.repl .monaco-list-row:has(.source:text-is("${link}"))`, { hasText: text });
  }

  /**
   * Opens the first row of the Debug Console with this source link and returns what is under it: a map from the
   * variables' names to their values. By the keyboard: the list follows new rows, so a place on the screen is none
   * to click on.
   */
  async openHitRow(link) {
    const deadline = Date.now() + TRIES_MS;
    const late = (what) => {
      if (Date.now() > deadline) throw new Error(what);
    };
    await this.page.locator(".repl .monaco-list").focus();
    await this.page.keyboard.press("Home");
    let steps = 0;
    while ((await this.#focusedConsoleRow()).link !== link) {
      late(`no row of the Debug Console has the link ${link}`);
      await this.page.keyboard.press("ArrowDown");
      steps += 1;
    }
    for (;;) {
      const { expanded, children } = await this.#focusedConsoleRow();
      if (children.length > 0) return new Map(children);
      late(`the row of ${link} has nothing under it`);
      if (expanded === "false") await this.page.keyboard.press("ArrowRight");
      // Brings the row back onto the screen if the list has followed newer ones.
      await this.page.keyboard.press("Home");
      for (let step = 0; step < steps; step += 1) await this.page.keyboard.press("ArrowDown");
    }
  }

  /** The focused row of the Debug Console: its source link, whether it is expanded, and the rows under it. */
  #focusedConsoleRow() {
    return this.page.locator(".repl .monaco-list-rows").evaluate((list) => {
      // The list reuses its elements: their order in the document is not the order on the screen.
      const rows = new Map([...list.children].map((row) => [Number(row.dataset.index), row]));
      const [index, focused] = [...rows].find(([, row]) => row.classList.contains("focused")) ?? [];
      const children = [];
      for (let below = index + 1; rows.get(below)?.getAttribute("aria-level") === "2"; below += 1) {
        const row = rows.get(below);
        const name = row.querySelector(".name")?.textContent.replace(/[\s:=]+$/, "");
        children.push([name, row.querySelector(".value")?.textContent]);
      }
      const link = focused?.querySelector(".source")?.textContent;
      return { link, expanded: focused?.getAttribute("aria-expanded"), children };
    });
  }

  /** The value of a variable in the Variables pane. Opens every scope, and waits until the value matches. */
  async variable(name, pattern = /\S/) {
    const scopes = this.page.locator('.debug-variables .monaco-list-row[aria-level="1"]');
    await scopes.first().waitFor({ timeout: ANSWER_MS });
    await this.#openAll(scopes);
    const row = this.variableRows
      .filter({ has: this.page.locator(".name", { hasText: new RegExp(`^\\s*${name}\\s*[:=]?\\s*$`) }) })
      .filter({ has: this.page.locator(".value", { hasText: pattern }) });
    await row.first().waitFor({ timeout: ANSWER_MS });
    return row.first().locator(".value").textContent();
  }

  async showFleet() {
    await this.runCommand("RipTrace: Show fleet");
    await this.fleetRows.first().waitFor({ timeout: TRIES_MS });
  }

  /** A row of the Fleet view by what it says, from its beginning. */
  fleetRow(text) {
    return this.fleetRows.filter({ hasText: text }).first();
  }

  /** Opens a row of the Fleet view. */
  async openFleetRow(text) {
    const row = this.fleetRow(text);
    await this.#until(`${text} is open in the Fleet view`, async () => {
      await row.waitFor({ timeout: ANSWER_MS });
      if ((await row.getAttribute("aria-expanded")) === "true") return true;
      const clicked = row.locator(".monaco-tl-twistie").click({ timeout: TRY_MS });
      const opened = row.and(this.page.locator('[aria-expanded="true"]'));
      return (await inTime(clicked)) && this.#seen(opened);
    });
  }

  /** Call stack, variables and the buttons of the debugger, where another view has taken their place. */
  async showDebugger() {
    await this.runCommand("View: Show Run and Debug");
    await this.callStackRows.first().waitFor({ timeout: ANSWER_MS });
  }

  /** A message in the corner of the window. */
  notification(text) {
    return this.page.locator(".notification-toast", { hasText: text }).first();
  }

  /** What the Fleet view says in place of a fleet. */
  fleetSays(text) {
    return this.page.locator('.pane:has(> .pane-header[aria-label^="Fleet"])', { hasText: text }).first();
  }

  async showWalkthrough() {
    await this.runCommand("RipTrace: First steps");
    await this.walkthroughStep("binary").waitFor({ timeout: ANSWER_MS });
  }

  /** A step of the walkthrough by its id in the manifest. */
  walkthroughStep(id) {
    return this.page.locator(`.getting-started-step[data-step-id$="#${id}"]`);
  }

  /** A step of the walkthrough that is done. */
  walkthroughStepDone(id) {
    return this.walkthroughStep(id).and(this.page.locator(":has(.complete)"));
  }

  async showTimeline() {
    await this.runCommand("RipTrace: Show timeline");
    // Its page is loaded with it the first time: a frame in a frame, and a worker that brings its files.
    await this.timeline.locator("body").waitFor({ timeout: LOAD_MS });
  }

  /** The number of a hit in the list of the timeline that is not this one. */
  async otherHitRow(seq) {
    const other = this.hitRows.filter({ hasNot: this.timeline.locator(`.seq:text-is("${seq}")`) }).first();
    await other.waitFor({ timeout: ANSWER_MS });
    return Number(await other.getAttribute("data-seq"));
  }

  #hitRow(seq) {
    return this.timeline.locator(`#list .hit[data-seq="${seq}"]`);
  }

  /** Makes the timeline stand still. */
  async stopFollowing() {
    await this.timeline.locator('#follow[aria-pressed="true"]').click({ timeout: ANSWER_MS });
    await this.timeline.locator('#follow[aria-pressed="false"]').waitFor({ timeout: ANSWER_MS });
  }

  async pressHitRow(seq) {
    await this.#hitRow(seq).click({ timeout: ANSWER_MS });
  }

  /** Waits until the timeline shows this hit as the open one. */
  async openRowIs(seq) {
    await this.timeline.locator(`#list .hit.open[data-seq="${seq}"]`).waitFor({ timeout: ANSWER_MS });
    await this.timeline.locator(`#list .hit[data-seq="${seq}"][aria-selected="true"]`).waitFor({ timeout: ANSWER_MS });
  }

  /** Puts the focus on the row that takes part in the order of the Tab key; returns its hit. */
  async focusHitRow() {
    await this.timeline.locator('#list .hit[tabindex="0"]').focus({ timeout: ANSWER_MS });
    return this.#focusedSeq();
  }

  async focusMark() {
    await this.timeline.locator('.mark[tabindex="0"]').focus({ timeout: ANSWER_MS });
    return this.#focusedSeq();
  }

  /** Presses a key in the timeline; returns the hit that has the focus then. */
  async moveInTimeline(key) {
    await this.page.keyboard.press(key);
    return this.#focusedSeq();
  }

  async #focusedSeq() {
    const focused = this.timeline.locator(".hit:focus, .mark:focus");
    await focused.waitFor({ timeout: ANSWER_MS });
    return Number(await focused.getAttribute("data-seq"));
  }

  /** The times on the axis. Waits until they are other ones than these. */
  async axisOtherThan(times) {
    const axis = this.timeline.locator("#axis:not(:empty)", times === undefined ? {} : { hasNotText: times });
    await axis.waitFor({ timeout: ANSWER_MS });
    return axis.textContent();
  }

  async filterTimeline(text) {
    const box = this.timeline.locator("#filter-text");
    await box.fill(text, { timeout: ANSWER_MS });
    await box.press("Enter", { timeout: ANSWER_MS });
  }

  /** Waits until the list of the timeline has rows, and all of them match. */
  async hitRowsAll(pattern) {
    await this.hitRows.filter({ hasText: pattern }).first().waitFor({ timeout: ANSWER_MS });
    await this.hitRows.filter({ hasNotText: pattern }).first().waitFor({ state: "detached", timeout: ANSWER_MS });
  }

  /** Elements of the timeline that can be acted on and that a screen reader has no name for. */
  namelessInTimeline() {
    return this.timeline.locator("body").evaluate((body) =>
      [...body.querySelectorAll("button, input, [role=option], [role=listbox], [role=toolbar], [role=search]")]
        .filter((each) => {
          const labelled = each.getAttribute("aria-labelledby");
          const name = each.getAttribute("aria-label") ?? (labelled && document.getElementById(labelled)?.textContent);
          return !(name ?? each.textContent).trim();
        })
        .map((each) => each.outerHTML.slice(0, 200)),
    );
  }

  /** The colours of the timeline's text and of what is behind it, as `rgb(r, g, b)`. */
  async timelineColours() {
    const text = await this.timeline.locator("#status").evaluate((each) => getComputedStyle(each).color);
    // The page is see-through: what is behind it is the panel.
    const background = await this.timeline.locator("body").evaluate((body) => {
      const probe = body.appendChild(document.createElement("span"));
      probe.style.color = "var(--vscode-panel-background)";
      const { color } = getComputedStyle(probe);
      probe.remove();
      return color;
    });
    return { text, background };
  }

  /** Light where it is dark, and dark where it is light. */
  async toggleTheme() {
    const light = await this.page.locator(".monaco-workbench.vs").count();
    const other = this.page.locator(light ? ".monaco-workbench.vs-dark" : ".monaco-workbench.vs");
    await this.runCommand("Preferences: Toggle between Light/Dark Themes");
    await other.first().waitFor({ timeout: ANSWER_MS });
  }

  /**
   * The error of a wait that found nothing, with what the workbench shows instead: a locator that matched nothing does
   * not say why.
   */
  async explained(error) {
    const seen = await this.#seenInstead().catch((why) => `(the page cannot be asked: ${why.message})`);
    return new Error(`${error.message}\nWhat is seen instead: ${seen}`, { cause: error });
  }

  async #seenInstead() {
    const places = {
      tab: ".tab.active .label-name",
      line: ".editor-instance .active-line-number",
      message: ".notification-toast .notification-list-item-message, .monaco-dialog-box",
      input: ".quick-input-widget:visible input, .quick-input-widget:visible .monaco-list-row",
      breakpoints: ".debug-breakpoints .monaco-list-row",
      lenses: ".codelens-decoration",
      stack: ".pane:has(.debug-call-stack)",
      variables: ".debug-variables .monaco-list-row",
      console: ".repl .monaco-list-row",
      fleet: '.pane:has(> .pane-header[aria-label^="Fleet"])',
      status: ".part.statusbar .statusbar-item-label",
    };
    const seen = {};
    const read = async (name, locator) => {
      const texts = (await locator.allTextContents()).map((text) => text.replaceAll(/\s+/g, " ").trim().slice(0, 120));
      const told = texts.filter((text) => text !== "");
      if (told.length > 0) seen[name] = told.length > SEEN_MAX ? [...told.slice(0, SEEN_MAX), "..."] : told;
    };
    for (const [name, selector] of Object.entries(places)) await read(name, this.page.locator(selector));
    if ((await this.page.locator("iframe.webview.ready").count()) > 0) {
      await read("timeline", this.timeline.locator("#status, #problem:visible, #list-title"));
      await read("hits", this.hitRows);
    }
    seen.focus = await this.page.evaluate(() => document.activeElement?.outerHTML.slice(0, 120));
    return JSON.stringify(seen, null, 1);
  }

  /** Makes tries until one returns true. */
  async #until(what, attempt) {
    const deadline = Date.now() + TRIES_MS;
    while (!(await attempt())) {
      if (Date.now() > deadline) throw new Error(`${what}: not within ${TRIES_MS} ms`);
      // Told, so that a place that needs luck is seen before it fails.
      process.stderr.write(`[workbench] not yet, tried again: ${what}\n`);
    }
  }

  /** Whether a locator comes to this state in the time of one try. */
  #seen(locator, state = "visible", timeout = TRY_MS) {
    return inTime(locator.waitFor({ state, timeout }));
  }
}

/** Whether what playwright waits for came before its deadline; any other error is thrown. */
async function inTime(waiting) {
  try {
    await waiting;
    return true;
  } catch (error) {
    if (error.name !== "TimeoutError") throw error;
    return false;
  }
}

/** The text of an editor of one line, which shows spaces as no-break spaces. */
async function textOf(lines) {
  const [text] = await lines.allTextContents();
  return text?.replaceAll("\u00a0", " ");
}
