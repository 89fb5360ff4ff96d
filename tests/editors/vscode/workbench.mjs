/**
 * The workbench as a person uses it: what to click and where to look, in VS Code 1.139.
 *
 * All selectors are here. A method returns when the workbench shows the effect, or fails at a deadline.
 */
import { ANSWER_MS } from "../support.mjs";

/** A cold workbench loads its modules one by one. */
const LOAD_MS = 120_000;
/** The editor shows a hover after 0.3 s of rest. */
const HOVER_MS = 2_000;

export class Workbench {
  constructor(page) {
    this.page = page;
    /** Rows of the Debug Console that are on the screen; the list is virtual. */
    this.consoleRows = page.locator(".repl .monaco-list-row");
    this.variableRows = page.locator(".debug-variables .monaco-list-row");
    this.callStackRows = page.locator(".debug-call-stack .monaco-list-row");
    this.statusBar = page.locator(".part.statusbar");
    this.codeLenses = page.locator(".codelens-decoration");
  }

  async load(url) {
    await this.page.goto(url, { timeout: LOAD_MS });
    await this.page
      .locator(".monaco-workbench .explorer-folders-view .monaco-list-row")
      .first()
      .waitFor({ timeout: LOAD_MS });
  }

  /** Opens a file of the workspace by the quick open box. */
  async openFile(file) {
    const name = file.split("/").at(-1);
    await this.page.keyboard.press("Control+P");
    await this.page.locator(".quick-input-box input").fill(file);
    await this.page
      .locator(`.quick-input-list .monaco-list-row:has-text("${name}")`)
      .first()
      .waitFor({ timeout: ANSWER_MS });
    await this.page.keyboard.press("Enter");
    await this.page.locator(`.tab.active[data-resource-name="${name}"]`).waitFor({ timeout: ANSWER_MS });
    await this.page.locator(".editor-instance .view-lines .view-line").first().waitFor({ timeout: ANSWER_MS });
  }

  /** Puts the cursor on a line, which also brings it onto the screen. */
  async goToLine(line) {
    await this.page.locator(".editor-instance .monaco-editor .view-lines").first().click();
    await this.page.keyboard.press("Control+G");
    await this.page.locator(".quick-input-box input").fill(`:${line}`);
    await this.page.keyboard.press("Enter");
    await this.page.locator(".quick-input-widget").waitFor({ state: "hidden", timeout: ANSWER_MS });
    await this.lineNumber(line).waitFor({ timeout: ANSWER_MS });
  }

  lineNumber(line) {
    return this.page.locator(`.editor-instance .margin-view-overlays .line-numbers:text-is("${line}")`).first();
  }

  /** The glyph margin is left of the line number. */
  async clickGutter(line) {
    const box = await this.lineNumber(line).boundingBox();
    await this.page.mouse.click(box.x - 8, box.y + box.height / 2);
  }

  /**
   * Rests the pointer on a sign in the gutter until its hover shows this text. The editor may still be scrolling, and
   * then the pointer rests on something else: it is moved away and back until the hover is there.
   * `text` is a pattern that takes any white space: the hover shows no-break spaces.
   */
  async hoverGlyph(kind, text) {
    const hover = this.page.locator(".monaco-hover:not(.hidden)", { hasText: text }).first();
    const deadline = Date.now() + ANSWER_MS;
    for (;;) {
      await this.page.mouse.move(0, 0);
      await this.glyph(kind).first().hover({ timeout: ANSWER_MS });
      try {
        await hover.waitFor({ timeout: HOVER_MS });
        return;
      } catch (error) {
        if (Date.now() > deadline) throw error;
      }
    }
  }

  /** A breakpoint's sign in the gutter; `kind` is VS Code's icon: `debug-breakpoint`, `debug-breakpoint-log`, ... */
  glyph(kind) {
    return this.page.locator(`.editor-instance .glyph-margin-widgets .codicon-${kind}`);
  }

  async runCommand(title) {
    await this.page.keyboard.press("F1");
    const input = this.page.locator(".quick-input-box input");
    await input.waitFor({ timeout: ANSWER_MS });
    await input.fill(`>${title}`);
    await this.page
      .locator(`.quick-input-list .monaco-list-row.focused:has-text("${title}")`)
      .waitFor({ timeout: ANSWER_MS });
    await this.page.keyboard.press("Enter");
    await this.page.locator(".quick-input-widget").waitFor({ state: "hidden", timeout: ANSWER_MS });
  }

  /** A logpoint on the line of the cursor. */
  async addLogpoint(message) {
    await this.runCommand("Debug: Add Logpoint...");
    const input = this.page.locator(".breakpoint-widget .inputContainer");
    await input.waitFor({ timeout: ANSWER_MS });
    await this.page.keyboard.insertText(message);
    await this.page.keyboard.press("Enter");
    await input.waitFor({ state: "detached", timeout: ANSWER_MS });
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
    const found = await this.page.waitForFunction(
      ([source, flags]) => {
        const pane = document.querySelector(".debug-call-stack")?.closest(".pane");
        return new RegExp(source, flags).exec(pane?.textContent ?? "")?.[0];
      },
      [pattern.source, pattern.flags],
      { timeout: milliseconds, polling: 50 },
    );
    return found.jsonValue();
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

  /** Opens the node that a row of a tree stands for, if it is not open. */
  async expand(row) {
    if ((await row.getAttribute("aria-expanded")) !== "false") return;
    await row.locator(".monaco-tl-twistie").click({ timeout: ANSWER_MS });
  }

  async showDebugConsole() {
    await this.page.keyboard.press("Control+Shift+Y");
    await this.page.locator(".repl").waitFor({ timeout: ANSWER_MS });
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
    const deadline = Date.now() + ANSWER_MS;
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
    const closed = scopes.and(this.page.locator('[aria-expanded="false"]'));
    while ((await closed.count()) > 0) await this.expand(closed.first());
    const row = this.variableRows
      .filter({ has: this.page.locator(".name", { hasText: new RegExp(`^\\s*${name}\\s*[:=]?\\s*$`) }) })
      .filter({ has: this.page.locator(".value", { hasText: pattern }) });
    await row.first().waitFor({ timeout: ANSWER_MS });
    return row.first().locator(".value").textContent();
  }
}
