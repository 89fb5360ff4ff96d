//! Pads and handlers, run: the test is its own target.

mod cases;
mod cost;
mod displaced;
mod faults;
mod generated;
mod others;
mod state;
mod storm;
mod tables;
mod world;
