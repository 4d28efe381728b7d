//! Skew figures from counters, pure, and the report built from them.
