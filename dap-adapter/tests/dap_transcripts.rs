//! Conversations of editors with the debug adapter, over a fake fleet. Each message of the adapter is checked against
//! the protocol's schema, and a test fails on any message that it has not read.

mod dap_support;

#[path = "dap_transcripts/bad_input.rs"]
mod bad_input;
#[path = "dap_transcripts/breakpoints.rs"]
mod breakpoints;
#[path = "dap_transcripts/hits.rs"]
mod hits;
#[path = "dap_transcripts/lifecycle.rs"]
mod lifecycle;
#[path = "dap_transcripts/modes.rs"]
mod modes;
#[path = "dap_transcripts/own.rs"]
mod own;
#[path = "dap_transcripts/past.rs"]
mod past;
#[path = "dap_transcripts/questions.rs"]
mod questions;
#[path = "dap_transcripts/recordings.rs"]
mod recordings;
#[path = "dap_transcripts/scale.rs"]
mod scale;
#[path = "dap_transcripts/timeline.rs"]
mod timeline;
