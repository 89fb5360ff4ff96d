//! Hits, drops and states as a person or a program reads them: one form for the debug console and the terminal
//! ([`text`]), one for programs ([`json`]). It formats and decides nothing.

pub mod json;
pub mod text;
pub mod time;
