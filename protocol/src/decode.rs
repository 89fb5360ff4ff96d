//! Raw hits to values.
