/**
 * The HTML of the timeline's page: its fixed parts, which drawing.ts fills. Imports neither vscode nor the DOM.
 *
 * Nothing is loaded but the extension's own script and style, and only the script with this nonce runs.
 */

export interface PageParts {
  /** What the editor serves the extension's files from. */
  readonly source: string;
  readonly script: string;
  readonly style: string;
  readonly nonce: string;
}

export function pageHtml({ source, script, style, nonce }: PageParts): string {
  const policy = `default-src 'none'; style-src ${source}; script-src 'nonce-${nonce}'`;
  return `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${attribute(policy)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="${attribute(style)}">
<title>RipTrace Timeline</title>
</head>
<body>
<p id="nothing"><span id="nothing-text">No session is running.</span> <button id="attach" type="button">Attach to the fleet…</button></p>
<main id="timeline" hidden>
<div id="bar">
<div role="toolbar" aria-label="Timeline" id="tools">
<button type="button" id="follow" aria-pressed="true" title="The window moves with the newest hit (F)">Follow</button>
<button type="button" id="zoom-out" aria-label="Zoom out" title="Zoom out (−)">−</button>
<button type="button" id="zoom-in" aria-label="Zoom in" title="Zoom in (+)">+</button>
<button type="button" id="all" title="Show all of the session (0)">All</button>
</div>
<form role="search" aria-label="Filter hits" id="filter">
<input id="filter-text" aria-label="Text of the hit, or = and an expression over its values" placeholder="Text, or =quantity &gt; 3" spellcheck="false">
<input id="filter-service" aria-label="Service" placeholder="Service" spellcheck="false">
<input id="filter-host" aria-label="Host" placeholder="Host" spellcheck="false">
<input id="filter-goroutine" aria-label="Goroutine" placeholder="Goroutine" inputmode="numeric" spellcheck="false">
<button type="submit">Filter</button>
<button type="reset" id="clear">Clear</button>
</form>
<span id="status" role="status"></span>
</div>
<p id="problem" role="alert" hidden></p>
<div id="lanes" role="group" aria-label="Hits by service. Left and right go from mark to mark, up and down from service to service, Enter opens a hit."></div>
<div id="axis" aria-hidden="true"></div>
<section id="list-part" aria-labelledby="list-title">
<div id="list-bar">
<h2 id="list-title">Hits</h2>
<button type="button" id="older">Older</button>
<button type="button" id="newer">Newer</button>
<button type="button" id="newest">Newest</button>
</div>
<div id="list" role="listbox" aria-labelledby="list-title" tabindex="-1"></div>
</section>
</main>
<script nonce="${nonce}" src="${attribute(script)}"></script>
</body>
</html>
`;
}

function attribute(value: string): string {
  return value.replaceAll("&", "&amp;").replaceAll('"', "&quot;").replaceAll("<", "&lt;");
}
