//! The only module that knows aya: load, attach, pin, typed maps.
