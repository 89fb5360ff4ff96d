//! Symbols: what the debug information of a build says.
