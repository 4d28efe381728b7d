//! The demo backend and the load driver.
