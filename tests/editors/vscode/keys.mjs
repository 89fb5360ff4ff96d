/**
 * How long the workbench takes from a key to the picture that shows it.
 */

/**
 * Types letters into the editor that has the focus until `until` resolves, one each `everyMs`; returns for each the
 * milliseconds from the key to the picture that has it.
 */
export async function typeUntil(page, { everyMs, until, keyMs }) {
  await page.evaluate(watchKeys, keyMs);
  const times = [];
  let over = false;
  void until.then(
    () => (over = true),
    () => (over = true),
  );
  for (let n = 0; !over; n += 1) {
    const next = performance.now() + everyMs;
    const letter = String.fromCharCode(97 + (n % 26));
    await page.evaluate(() => window.riptraceArm());
    await page.keyboard.press(letter);
    times.push(await page.evaluate(() => window.riptraceShown));
    // A line of its own for each alphabet: a long line is more work for the editor than a person makes it.
    if (n % 26 === 25) await page.keyboard.press("Enter");
    const pause = next - performance.now();
    if (pause > 0) await new Promise((resolve) => setTimeout(resolve, pause));
  }
  await until;
  return times;
}

/**
 * In the page: from `riptraceArm()` on, `riptraceShown` is a promise of how long the next key takes to be painted, in
 * milliseconds from when the browser got it (the page may be too busy to be told at once); refused after `keyMs`.
 */
function watchKeys(keyMs) {
  const text = document.querySelector(".editor-instance .view-lines");
  /** What the browser says of the paint that followed the key's handlers. */
  let browserSays = 0;
  new PerformanceObserver((list) => {
    for (const { name, duration } of list.getEntries()) if (name === "keydown") browserSays = duration;
  }).observe({ type: "event", durationThreshold: 16 });
  window.riptraceArm = () => {
    browserSays = 0;
    window.riptraceShown = new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`a key was not shown within ${keyMs} ms`)), keyMs);
      let pressed;
      window.addEventListener("keydown", (event) => (pressed = event.timeStamp), { capture: true, once: true });
      const observer = new MutationObserver(() => {
        if (pressed === undefined) return;
        observer.disconnect();
        // VS Code draws in an animation frame: a message comes once that frame is painted. Were it drawn before a frame,
        // the message would come too soon, and the browser's own measure, which has come by the next frame, is longer.
        const { port1, port2 } = new MessageChannel();
        port1.onmessage = () => {
          const painted = performance.now() - pressed;
          requestAnimationFrame(() =>
            setTimeout(() => {
              clearTimeout(timer);
              resolve(Math.max(painted, browserSays));
            }),
          );
        };
        port2.postMessage(undefined);
      });
      observer.observe(text, { childList: true, subtree: true, characterData: true });
    });
  };
}

/** The value that so many of the sorted numbers are not above; `share` from 0 to 1. */
export function quantile(numbers, share) {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)];
}
