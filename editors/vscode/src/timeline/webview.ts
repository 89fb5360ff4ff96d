/**
 * Runs in the timeline's page: hands messages of the extension to the model, keys and clicks to its methods, and draws
 * what it says. All that can be decided without a page is in model.ts and marks.ts.
 */
import { drawAxis, drawLanes, drawList, drawStatus, element } from "./drawing";
import { NO_FILTER, type FilterForm } from "./filter";
import { nearest, type Mark } from "./marks";
import type { Action, FromPage, ToPage } from "./messages";
import { Timeline, type Request } from "./model";
import { Pace } from "./pace";

declare function acquireVsCodeApi(): {
  postMessage(message: FromPage): void;
  getState(): unknown;
  setState(state: unknown): void;
};

/** A mark is not narrower than this, in CSS pixels: what is narrower can be neither seen nor hit. */
const MARK_PIXELS = 6;
const ZOOM_STEP = 2;
const PAN_STEP = 0.25;
/** A drag that is shorter than this, in pixels, is a click. */
const DRAG_PIXELS_MIN = 4;

const api = acquireVsCodeApi();
const questions = new Map<number, { resolve: (body: unknown) => void; reject: (why: Error) => void }>();
let lastQuestion = 0;
let session: string | undefined;

const timeline = new Timeline(ask, draw);

function ask(request: Request, args: object): Promise<unknown> {
  lastQuestion += 1;
  const id = lastQuestion;
  api.postMessage({ type: "ask", id, request, args });
  return new Promise((resolve, reject) => questions.set(id, { resolve, reject }));
}

window.addEventListener("message", ({ data }: MessageEvent<ToPage>) => {
  switch (data.type) {
    case "session":
      begin(data.name);
      break;
    case "changed":
      loadSoon();
      break;
    case "answer":
      questions.get(data.id)?.resolve(data.body);
      questions.delete(data.id);
      break;
    case "refused":
      questions.get(data.id)?.reject(new Error(data.why));
      questions.delete(data.id);
      break;
    case "do":
      act(data.action);
      break;
  }
});

const pace = new Pace();
/** A load that is waiting for its turn. */
let due: number | undefined;

/** Loads what is shown because hits have come: nobody waits for it. */
function loadSoon(): void {
  due ??= window.setTimeout(() => {
    due = undefined;
    if (session === undefined) {
      return;
    }
    const began = performance.now();
    void timeline.load().then(() => pace.loaded(began, performance.now()));
  }, pace.wait(performance.now()));
}

function begin(name: string | undefined): void {
  session = name;
  // Nobody answers them any more.
  for (const { reject } of questions.values()) {
    reject(new Error("the session has ended"));
  }
  questions.clear();
  timeline.reset();
  element("nothing").hidden = name !== undefined;
  element("timeline").hidden = name === undefined;
  if (name !== undefined) {
    measure();
    void timeline.setFilter(readForm());
  }
}

function act(action: Action): void {
  switch (action) {
    case "focusFilter":
      element("filter-text").focus();
      break;
    case "zoomIn":
      void timeline.zoomBy(1 / ZOOM_STEP);
      break;
    case "zoomOut":
      void timeline.zoomBy(ZOOM_STEP);
      break;
    case "showAll":
      void timeline.showAll();
      break;
    case "follow":
      void timeline.setFollowing(!timeline.following);
      break;
  }
}

/** The number of the hit whose mark, and the one whose row, has or had the focus last. */
const focus = { mark: undefined as number | undefined, row: undefined as number | undefined };

function draw(): void {
  drawLanes(timeline, focus.mark);
  drawAxis(timeline);
  drawList(timeline, focus.row);
  drawStatus(timeline);
  api.setState({ form: timeline.form });
}

function open(seq: number): void {
  api.postMessage({ type: "open", seq });
}

function choose(mark: Mark): void {
  focus.mark = mark.seq;
  void timeline.listFrom(mark.seq);
  if (mark.hits === 1) {
    open(mark.seq);
  }
}

/** The mark that an event is about. */
function markAt(target: EventTarget | null): { mark: Mark; lane: number; index: number } | undefined {
  const drawn = target instanceof Element ? target.closest<HTMLElement>(".mark") : null;
  if (drawn === null) {
    return undefined;
  }
  const [lane, index] = [Number(drawn.dataset["lane"]), Number(drawn.dataset["index"])];
  const mark = timeline.lanes[lane]?.marks[index];
  return mark === undefined ? undefined : { mark, lane, index };
}

function focusMark(lane: number, index: number): void {
  const mark = timeline.lanes[lane]?.marks[index];
  if (mark === undefined) {
    return;
  }
  focus.mark = mark.seq;
  timeline.stay();
  draw();
  document.querySelector<HTMLElement>(`.mark[data-lane="${lane}"][data-index="${index}"]`)?.focus();
}

const lanes = element("lanes");

lanes.addEventListener("keydown", (event) => {
  const at = markAt(event.target);
  if (at === undefined) {
    return;
  }
  const { lane, index, mark } = at;
  const marks = timeline.lanes[lane]?.marks ?? [];
  const toLane = (other: number): void => focusMark(other, nearest(timeline.lanes[other]?.marks ?? [], mark.centre));
  const actions: Record<string, () => void> = {
    ArrowRight: () => (index + 1 < marks.length ? focusMark(lane, index + 1) : void timeline.panBy(PAN_STEP)),
    ArrowLeft: () => (index > 0 ? focusMark(lane, index - 1) : void timeline.panBy(-PAN_STEP)),
    ArrowDown: () => toLane(lane + 1),
    ArrowUp: () => toLane(lane - 1),
    Home: () => focusMark(lane, 0),
    End: () => focusMark(lane, marks.length - 1),
    Enter: () => choose(mark),
    " ": () => choose(mark),
    z: () => void timeline.zoomTo(mark.span),
  };
  const action = actions[event.key];
  if (action !== undefined && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    action();
  }
});

lanes.addEventListener("dblclick", (event) => {
  const at = markAt(event.target);
  if (at !== undefined) {
    void timeline.zoomTo(at.mark.span);
  }
});

lanes.addEventListener(
  "wheel",
  (event) => {
    const track = event.target instanceof Element ? event.target.closest(".track") : null;
    if (track === null) {
      return;
    }
    const box = track.getBoundingClientRect();
    if (event.ctrlKey || event.metaKey || event.altKey) {
      event.preventDefault();
      void timeline.zoomBy(event.deltaY > 0 ? ZOOM_STEP : 1 / ZOOM_STEP, (event.clientX - box.left) / box.width);
    } else if (event.deltaX !== 0 || event.shiftKey) {
      event.preventDefault();
      void timeline.panBy((event.deltaX || event.deltaY) / box.width);
    }
  },
  { passive: false },
);

/** A drag over the lanes moves the window; a press that does not move is a click on what is under it. */
let drag: { readonly x: number; readonly width: number; last: number; moved: boolean } | undefined;

lanes.addEventListener("pointerdown", (event) => {
  const track = event.target instanceof Element ? event.target.closest(".track") : null;
  if (track !== null && event.button === 0) {
    drag = { x: event.clientX, width: track.getBoundingClientRect().width, last: event.clientX, moved: false };
  }
});
window.addEventListener("pointermove", (event) => {
  if (drag === undefined || Math.abs(event.clientX - drag.x) < DRAG_PIXELS_MIN) {
    return;
  }
  drag.moved = true;
  void timeline.panBy((drag.last - event.clientX) / drag.width);
  drag.last = event.clientX;
});
window.addEventListener("pointerup", () => {
  // The click comes after it.
  setTimeout(() => (drag = undefined));
});
lanes.addEventListener("click", (event) => {
  const at = markAt(event.target);
  if (at !== undefined && drag?.moved !== true) {
    choose(at.mark);
  }
});

const list = element("list");

function rowAt(target: EventTarget | null): HTMLElement | null {
  return target instanceof Element ? target.closest<HTMLElement>(".hit") : null;
}

function openRow(row: HTMLElement): void {
  const seq = Number(row.dataset["seq"]);
  focus.row = focus.mark = seq;
  open(seq);
  timeline.stay();
  void timeline.centreOn(seq).then(draw);
}

list.addEventListener("pointerenter", () => timeline.hold(true));
list.addEventListener("pointerleave", () => timeline.hold(false));

list.addEventListener("click", (event) => {
  const row = rowAt(event.target);
  if (row !== null) {
    openRow(row);
    row.focus();
  }
});

list.addEventListener("keydown", (event) => {
  const row = rowAt(event.target);
  if (row === null) {
    return;
  }
  const move = (to: Element | null): void => {
    if (to instanceof HTMLElement) {
      focus.row = Number(to.dataset["seq"]);
      timeline.stay();
      draw();
      to.focus();
    }
  };
  const actions: Record<string, () => void> = {
    ArrowDown: () => move(row.nextElementSibling),
    ArrowUp: () => move(row.previousElementSibling),
    Home: () => move(list.firstElementChild),
    End: () => move(list.lastElementChild),
    PageUp: () => void timeline.older(),
    PageDown: () => void timeline.newer(),
    Enter: () => openRow(row),
    " ": () => openRow(row),
  };
  const action = actions[event.key];
  if (action !== undefined) {
    event.preventDefault();
    action();
  }
});

document.addEventListener("keydown", (event) => {
  if (event.target instanceof HTMLInputElement || event.ctrlKey || event.metaKey || event.altKey) {
    return;
  }
  const actions: Record<string, Action> = {
    "+": "zoomIn",
    "=": "zoomIn",
    "-": "zoomOut",
    "0": "showAll",
    f: "follow",
    "/": "focusFilter",
  };
  const action = actions[event.key];
  if (action !== undefined) {
    event.preventDefault();
    act(action);
  }
});

const FORM_FIELDS = ["text", "service", "host", "goroutine"] as const;

function input(field: (typeof FORM_FIELDS)[number]): HTMLInputElement {
  return element(`filter-${field}`) as HTMLInputElement;
}

function readForm(): FilterForm {
  const [text, service, host, goroutine] = FORM_FIELDS.map((field) => input(field).value) as [
    string,
    string,
    string,
    string,
  ];
  return { text, service, host, goroutine };
}

element("filter").addEventListener("submit", (event) => {
  event.preventDefault();
  void timeline.setFilter(readForm());
});
element("filter").addEventListener("reset", () => void timeline.setFilter(NO_FILTER));

for (const [id, action] of [
  ["follow", "follow"],
  ["zoom-in", "zoomIn"],
  ["zoom-out", "zoomOut"],
  ["all", "showAll"],
] as const) {
  element(id).addEventListener("click", () => act(action));
}
element("older").addEventListener("click", () => void timeline.older());
element("newer").addEventListener("click", () => void timeline.newer());
element("newest").addEventListener("click", () => void timeline.toNewest());
element("attach").addEventListener("click", () => api.postMessage({ type: "attach" }));

/** Tells the model how many marks stand beside each other. */
function measure(): void {
  const width = element("axis").clientWidth;
  if (width > 0) {
    void timeline.resize(width / MARK_PIXELS);
  }
}
new ResizeObserver(measure).observe(element("axis"));

/** What was typed before the view was hidden. */
const kept = api.getState() as { form?: FilterForm } | undefined;
for (const field of FORM_FIELDS) {
  input(field).value = kept?.form?.[field] ?? "";
}
api.postMessage({ type: "ready" });
