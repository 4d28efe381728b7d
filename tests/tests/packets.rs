//! Packets that are not just data: errors from routers, closing, and connections that live for one request.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use evenkeel_tests::{Loss, Offloads, PORT, Setup, Stage, eventually};
use xtask::shell;

/// A lab whose client sits behind a router, every packet as on a wire.
fn behind_router() -> Setup {
    let mut setup = Setup::backends(1);
    // A router that loses nothing worth mentioning.
    setup.spec.loss = Some(Loss::EveryNth(1_000_000));
    setup.spec.offloads = Offloads::None;
    setup
}

fn download(stage: &Stage, bytes: u64) -> Result<String> {
    let url = format!("{}evenkeel/bytes/{bytes}", stage.url());
    let mut curl = stage.client("curl");
    curl.args([
        "--silent",
        "--show-error",
        "--max-time",
        "20",
        "--output",
        "/dev/null",
        "--write-out",
    ]);
    shell::capture(curl.args(["%{http_code} %{size_download}", &url]))
}

#[test]
fn a_backend_learns_of_a_narrow_link_on_the_way_to_the_client() -> Result<()> {
    for setup in [behind_router(), behind_router().dnat()] {
        let stage = setup.start()?;
        // The router's link to the client is narrower than either end knows: it drops and says so, to the service's
        // address; only a translated error reaches the backend.
        let router = format!("{}-router", stage.lab.id());
        shell::capture(
            Command::new("ip").args(["-n", &router, "link", "set", "client", "mtu", "1200"]),
        )?;
        let got = download(&stage, 300_000)?;
        ensure!(got == "200 300000", "{}: {got}", stage.setup.forwarding);
    }
    Ok(())
}

/// Labs in which both ends believe in 1,500 bytes, and no router is there to say otherwise.
fn without_router() -> Result<Vec<Stage>> {
    let with = |offloads| {
        let mut setup = Setup::backends(1);
        setup.spec.offloads = offloads;
        setup
    };
    let (left, written) = (with(Offloads::All), with(Offloads::None));
    let setups = [
        left.clone(),
        left.dnat(),
        written.clone().hook("xdp"),
        written.dnat(),
    ];
    setups.iter().map(prepared).collect()
}

fn prepared(setup: &Setup) -> Result<Stage> {
    let stage = setup.start()?;
    if setup.spec.offloads == Offloads::All {
        // The ends leave checksums to the device; here the balancer's kernel is the device, so that what it writes is checked.
        let balancer = stage.lab.balancer();
        for interface in stage.lab.interfaces() {
            shell::capture(
                balancer
                    .command("ethtool")
                    .args(["-K", &interface, "tx", "off"]),
            )?;
        }
    }
    Ok(stage)
}

#[test]
fn a_client_learns_that_the_balancers_own_way_to_the_backend_is_narrow() -> Result<()> {
    for stage in without_router()? {
        narrow(
            &stage,
            &stage.lab.backend_address(0, PORT)?.ip().to_string(),
        )?;
        let load = stage
            .load(&["-n", "20", "--payload", "30000", "--timeout", "6s"])?
            .all_ok()?;
        ensure!(load.ok == 20, "{:?}: {}", stage.setup, load.report);
        ensure!(answers(&stage)? > 0, "{:?}: none too big", stage.setup);
    }
    Ok(())
}

#[test]
fn a_backend_learns_that_the_balancers_own_way_to_the_client_is_narrow() -> Result<()> {
    for stage in without_router()? {
        narrow(&stage, "10.77.0.2")?;
        let got = download(&stage, 300_000)?;
        ensure!(got == "200 300000", "{:?}: {got}", stage.setup);
        ensure!(answers(&stage)? > 0, "{:?}: none too big", stage.setup);
    }
    Ok(())
}

/// How many ICMP errors of its own the data path has sent.
fn answers(stage: &Stage) -> Result<u64> {
    let status = stage.json(&["status"])?;
    Ok(status["events"]["icmp_sent"].as_u64().unwrap_or(0))
}

/// Gives the balancer's route to `address` an MTU of 1,200 bytes.
fn narrow(stage: &Stage, address: &str) -> Result<()> {
    let balancer = stage.lab.balancer();
    let way = shell::capture(balancer.command("ip").args(["-o", "route", "get", address]))?;
    let mut words = way.split_whitespace().skip_while(|word| *word != "dev");
    let interface = words.nth(1).context("a route without an interface")?;
    let narrow = [
        "route", "replace", address, "dev", interface, "mtu", "lock", "1200",
    ];
    shell::capture(balancer.command("ip").args(narrow)).map(drop)
}

#[test]
fn a_client_learns_of_a_narrow_link_on_the_way_to_the_backend() -> Result<()> {
    for (setup, inner) in [(Setup::backends(1), 1), (Setup::backends(1).dnat(), 2)] {
        let mut setup = setup;
        setup.spec.offloads = Offloads::None;
        let mut stage = setup.without_backends()?;
        let inner = format!("10.88.{inner}");
        behind_backend(&stage, &inner)?;
        let server = format!("{inner}.2:{PORT}");
        let _echo = echo_behind(&stage, &server)?;
        stage.replace_backend(0, &server)?;
        stage.start_daemon()?;
        let load = stage
            .load(&[
                // One at a time: answers in one packet would be too wide for the narrow link's other end.
                "-n",
                "20",
                "--payload",
                "30000",
                "--timeout",
                "6s",
            ])?
            .all_ok()?;
        ensure!(load.ok == 20, "{}", load.report);
    }
    Ok(())
}

/// Makes a namespace behind the first backend, which becomes a router with a narrow link to it. Narrow in one
/// direction only as far as we send: the narrow end of a veth does not receive wide packets either.
fn behind_backend(stage: &Stage, network: &str) -> Result<()> {
    let (inner, router) = (
        format!("{}-inner", stage.lab.id()),
        stage.lab.backends()[0].name().to_owned(),
    );
    let ip =
        |arguments: &str| shell::capture(Command::new("ip").args(arguments.split(' '))).map(drop);
    ip(&format!("netns add {inner}"))?;
    ip(&format!(
        "link add inner netns {router} type veth peer name eth0 netns {inner}"
    ))?;
    for (namespace, interface) in [(&router, "inner"), (&inner, "eth0")] {
        ip(&format!("-n {namespace} link set {interface} up"))?;
        let net = format!("--net=/run/netns/{namespace}");
        let off = [
            &net, "ethtool", "-K", interface, "tx", "off", "tso", "off", "gso", "off", "gro", "off",
        ];
        shell::capture(Command::new("nsenter").args(off))?;
    }
    ip(&format!("-n {router} addr add {network}.1/24 dev inner"))?;
    ip(&format!("-n {inner} addr add {network}.2/24 dev eth0"))?;
    ip(&format!("-n {router} link set inner mtu 1200"))?;
    ip(&format!("-n {inner} route add default via {network}.1"))?;
    ip(&format!(
        "-n {} route add {network}.0/24 via 10.77.1.2",
        stage.lab.balancer().name()
    ))?;
    stage.lab.backends()[0].sysctl("ipv4/ip_forward", "1")
}

fn echo_behind(stage: &Stage, address: &str) -> Result<evenkeel_tests::Process> {
    let net = format!("--net=/run/netns/{}-inner", stage.lab.id());
    let mut command = Command::new("nsenter");
    command
        .arg(net)
        .arg(xtask::workspace::evenkeel()?)
        .args(["echo", "--name", "inner", "--listen", address]);
    evenkeel_tests::Process::serve(&stage.lab, "inner", &mut command)
}

#[test]
fn a_connection_for_each_request_leaves_no_flow_behind() -> Result<()> {
    for setup in [
        Setup::backends(2),
        Setup::backends(2).dnat(),
        Setup::backends(2).hook("xdp"),
    ] {
        let stage = setup.start()?;
        let load = stage
            .load(&["-c", "10", "-n", "2000", "--http1", "--no-keepalive"])?
            .all_ok()?;
        ensure!(load.connections == 2000, "{}", load.report);
        ensure!(load.per_backend.len() == 2, "{}", load.report);
        let counts = stage.counts()?;
        ensure!(
            counts.flows_opened.values().sum::<u64>() == 2000,
            "{counts:?}"
        );
        let requests: u64 = counts.served.values().map(|served| served.requests).sum();
        ensure!(requests == 2000 && counts.service == 0, "{counts:?}");
        eventually(
            "every flow closed and gone",
            || stage.json(&["flows"]),
            |flows| flows["total"] == 0,
        )?;
        let services = stage.json(&["services"])?;
        ensure!(
            services["services"][0]["counters"]["flows_closed"] == 2000,
            "{services}"
        );
    }
    Ok(())
}

#[test]
fn a_download_through_the_balancer_is_whole() -> Result<()> {
    for setup in [
        Setup::backends(1),
        Setup::backends(1).dnat(),
        Setup::backends(1).hook("xdp"),
        Setup::backends(1).mode("l7"),
    ] {
        let stage = setup.start()?;
        let got = download(&stage, 20_000_000)?;
        ensure!(got == "200 20000000", "{:?}: {got}", stage.setup);
    }
    Ok(())
}

#[test]
fn packets_for_others_pass_untouched() -> Result<()> {
    let stage = Setup::backends(2).dnat().start()?;
    // The balancer routes as before: the client reaches a backend's own address, on the service's port too.
    for index in 0..2 {
        let url = format!("http://{}/", stage.lab.backend_address(index, PORT)?);
        let mut curl = stage.client("curl");
        curl.args(["--silent", "--show-error", "--max-time", "10", &url]);
        let answer: serde_json::Value = serde_json::from_str(&shell::capture(&mut curl)?)?;
        ensure!(answer["backend"] == format!("b{}", index + 1), "{answer}");
    }
    // And the host's own servers are reached, on the service's address as well.
    let own = SocketAddr::new(stage.lab.service(PORT).ip(), 8080);
    let _own = stage.echo_in(stage.lab.balancer(), own, "own", &[])?;
    let mut curl = stage.client("curl");
    curl.args([
        "--silent",
        "--show-error",
        "--max-time",
        "10",
        &format!("http://{own}/"),
    ]);
    let answer: serde_json::Value = serde_json::from_str(&shell::capture(&mut curl)?)?;
    ensure!(answer["backend"] == "own", "{answer}");
    let counts = stage.counts()?;
    ensure!(
        counts.flows_opened.values().all(|flows| *flows == 0),
        "{counts:?}"
    );
    Ok(())
}
