//! `evenkeel proxy`: the L7 path alone. It needs no root and no eBPF, so it is also the way to try evenkeel where there is
//! neither; nothing is measured by the kernel then. Its figures go to stdout as JSON at the end.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;

use super::Global;
use super::local_runtime::{block_on, termination};
use crate::balance::Policy;
use crate::l7::{BackendSpec, Limits, Proxy, ServiceSpec};

/// Arguments of `evenkeel proxy`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// Address to serve on.
    #[arg(long, value_name = "IP:PORT")]
    listen: SocketAddr,
    /// A backend; give it again for each further one.
    #[arg(long, required = true, value_name = "IP:PORT")]
    backend: Vec<SocketAddr>,
    /// How streams are balanced: `round_robin`, `least_request` or `p2c`.
    #[arg(long, default_value = "least_request", value_parser = policy)]
    policy: Policy,
    /// Threads; 0 is one for each CPU.
    #[arg(long, default_value_t = 0, value_name = "N")]
    workers: usize,
    /// How long streams in flight may take to finish after SIGTERM.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    grace: Duration,
}

fn policy(name: &str) -> Result<Policy, String> {
    Policy::ALL
        .into_iter()
        .find(|policy| policy.name() == name)
        .ok_or_else(|| "allowed are round_robin, least_request and p2c".to_owned())
}

/// Serves until SIGTERM or SIGINT.
pub(super) fn run(args: &Args, _global: &Global) -> anyhow::Result<()> {
    let limits = Limits {
        workers: args.workers,
        ..Limits::default()
    };
    let proxy = Proxy::start(limits, &[args.listen])?;
    let backends = args.backend.iter().map(|address| BackendSpec {
        address: *address,
        weight: 1,
        draining: false,
    });
    proxy.update(vec![ServiceSpec {
        address: args.listen,
        name: "proxy".to_owned(),
        policy: args.policy,
        backends: backends.collect(),
        any_address: true,
    }]);
    block_on(async {
        termination()?.await;
        anyhow::Ok(())
    })?
    .context("wait for a signal")?;
    let stats = proxy.stats();
    proxy.shutdown(args.grace);
    println!("{}", serde_json::to_string(&stats)?);
    Ok(())
}
