//! Developer commands of evenkeel as a library: [`lab`], the network-namespace lab, is used by the end-to-end tests
//! as well, and so are [`workspace`] (where things are) and [`shell`] (running other programs).

pub mod bench;
pub mod build;
pub mod demo;
pub mod fuzz;
pub mod lab;
pub mod setup;
pub mod shell;
pub mod term;
pub mod test;
pub mod vm;
pub mod workspace;
