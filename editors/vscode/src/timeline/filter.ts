/**
 * The filter of the timeline: what the form says, as the adapter reads it. Imports neither vscode nor the DOM.
 */

/** The fields of the form, as they are typed. */
export interface FilterForm {
  readonly host: string;
  readonly service: string;
  readonly goroutine: string;
  /** Part of the hit's text, or after `=`, an expression over its values. */
  readonly text: string;
}

export const NO_FILTER: FilterForm = { host: "", service: "", goroutine: "", text: "" };

/** As `riptrace/timelinePage` takes it. */
export interface Filter {
  readonly host?: string;
  readonly service?: string;
  readonly goroutine?: number;
  readonly text?: string;
  readonly when?: string;
}

export type FilterRead =
  | { readonly kind: "filter"; readonly filter: Filter }
  | { readonly kind: "problem"; readonly problem: string };

export function readFilter(form: FilterForm): FilterRead {
  const [host, service, goroutine, text] = [form.host, form.service, form.goroutine, form.text].map((each) =>
    each.trim(),
  ) as [string, string, string, string];
  if (goroutine !== "" && !/^\d{1,15}$/.test(goroutine)) {
    return { kind: "problem", problem: `'${goroutine}' is not the number of a goroutine` };
  }
  const when = text.startsWith("=") ? text.slice(1).trim() : "";
  return {
    kind: "filter",
    filter: {
      ...(host === "" ? {} : { host: glob(host) }),
      ...(service === "" ? {} : { service: glob(service) }),
      ...(goroutine === "" ? {} : { goroutine: Number(goroutine) }),
      ...(text === "" || text.startsWith("=") ? {} : { text }),
      ...(when === "" ? {} : { when }),
    },
  };
}

/** A name without wildcards means every name that it is part of: nobody types all of it. */
function glob(name: string): string {
  return /[*?]/.test(name) ? name : `*${name}*`;
}

/** Whether hits have to be looked into: then there are no counts, only pages of hits. */
export function needsSearch(filter: Filter): boolean {
  return filter.text !== undefined || filter.when !== undefined;
}
