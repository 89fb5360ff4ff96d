//! What the `riptrace` binary is made of beside its parts: arguments, settings, the connection to the bus, the
//! commands, the tools that a first run provisions, and the NATS server that it starts for them.

pub mod args;
pub mod commands;
pub mod connect;
pub mod environment;
pub mod failure;
pub mod nats_server;
pub mod netns;
pub mod output;
pub mod settings;
pub mod shutdown;
pub mod up_file;

pub use riptrace_provision as provision;
