//! Owns the state; everything changes through one place, in order.
