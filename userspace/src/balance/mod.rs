//! Policies, pure: which backend takes the next flow or stream.
