//! RipTrace's fleet: who is there, what is wanted, clocks, order.
