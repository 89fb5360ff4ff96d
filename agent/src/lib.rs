//! RipTrace on one host: discovery, symbols, capture plans, the probe engine, publishing.
