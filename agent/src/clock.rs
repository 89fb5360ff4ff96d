//! This host's monotonic clock.
