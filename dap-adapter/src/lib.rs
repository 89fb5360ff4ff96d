//! RipTrace's editor side: DAP server, language server, timeline, rendering, line mapping.
