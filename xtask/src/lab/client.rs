//! The way from the clients to the balancer: a link, or a router that loses packets, or a relay that also delays them.

use anyhow::{Result, ensure};

use super::{Lab, Loss, Namespace, Relay, Spec};
use crate::shell;

impl Lab {
    /// As the specification says.
    pub(super) fn client_side(&mut self, spec: &Spec) -> Result<()> {
        self.balancer.forward()?;
        ensure!(
            spec.loss.is_none() || spec.relay.is_none(),
            "a lab loses packets at the router or in a relay, not at both"
        );
        if spec.loss.is_none() && spec.relay.is_none() {
            return self.client_link(spec);
        }
        let router = Namespace::new(&self.id, "router");
        router.create()?;
        router.forward()?;
        self.balancer.link("client", &router, "balancer", spec)?;
        match &spec.relay {
            Some(relay) => {
                // Devices without an address of their own say nothing by themselves: every packet is a test's.
                for namespace in [&router, &self.client] {
                    namespace.sysctl("ipv6/conf/all/disable_ipv6", "1")?;
                    namespace.sysctl("ipv6/conf/default/disable_ipv6", "1")?;
                }
                let ends = ["eth0", "client"];
                self.relay = Some(Relay::start(relay, &self.client, &router, ends)?);
            }
            None => router.link("client", &self.client, "eth0", spec)?,
        }
        self.balancer.ip(&[
            "addr add 10.77.0.1/24 dev client",
            "route add 10.78.0.0/24 via 10.77.0.2",
        ])?;
        router.ip(&[
            "addr add 10.77.0.2/24 dev balancer",
            "addr add 10.78.0.1/24 dev client",
            "route add default via 10.77.0.1",
        ])?;
        self.client.ip(&[
            "addr add 10.78.0.2/24 dev eth0",
            "route add default via 10.78.0.1",
        ])?;
        let Some(loss) = spec.loss else {
            return Ok(());
        };
        let (how, one_in) = match loss {
            Loss::EveryNth(n) => ("inc", n),
            Loss::OneIn(n) => ("random", n),
        };
        ensure!(one_in > 0, "loss of one packet in 0 means nothing");
        shell::feed(
            router.command("nft").args(["-f", "-"]),
            &format!(
                "table ip loss {{\nchain forward {{\ntype filter hook forward priority 0;\n\
                 numgen {how} mod {one_in} == 0 counter drop\n}}\n}}\n"
            ),
        )
    }

    /// Clients with nothing between them and the balancer.
    fn client_link(&self, spec: &Spec) -> Result<()> {
        self.balancer.link("client", &self.client, "eth0", spec)?;
        self.balancer.ip(&["addr add 10.77.0.1/24 dev client"])?;
        self.client.ip(&[
            "addr add 10.77.0.2/24 dev eth0",
            "route add default via 10.77.0.1",
        ])
    }

    /// Takes the clients' link away and makes it anew, as a driver does that is loaded again: the interface has its old name, and
    /// nothing is attached to it.
    pub fn renew_client_link(&self, spec: &Spec) -> Result<()> {
        ensure!(
            spec.loss.is_none() && spec.relay.is_none(),
            "only a link without a router can be made anew"
        );
        self.balancer.ip(&["link del client"])?;
        self.client_link(spec)
    }
}
