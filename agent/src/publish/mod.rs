//! Publishing: from hits of many processes to batches in one order, with what was dropped.
