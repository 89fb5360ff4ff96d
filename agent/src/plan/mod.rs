//! Plans: a tracepoint at one site of one build, compiled to a capture program and its layout.
