//! The backend in real processes: C and Go programs that check their own results while every passage is counted.

mod c_program;
mod go_program;
mod killed;
mod quiet;
mod support;
