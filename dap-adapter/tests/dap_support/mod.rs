//! What the debug adapter's transcript tests share: a fake fleet, a scripted editor, hits, and the protocol's schema.

pub(crate) mod editor;
pub(crate) mod fleet;
pub(crate) mod hits;
mod schema;
