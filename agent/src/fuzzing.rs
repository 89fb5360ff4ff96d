//! What the fuzz targets of this crate (`agent/fuzz`) reach of its private parts. No part of the library's interface.

pub use crate::engine::exercise_record as record;
