//! Command lines, and the plans that they make.

use clap::Parser as _;

use crate::cli::{Cli, Command};
use crate::load::arrival::Clock;
use crate::load::driver::{Budget, Plan, Schedule, Target};

/// The plan that a command line makes.
fn plan(arguments: &str) -> anyhow::Result<Plan> {
    let words = ["evenkeel", "load"].into_iter();
    let cli = Cli::try_parse_from(words.chain(arguments.split_whitespace()))?;
    let Command::Load(args) = cli.command else {
        anyhow::bail!("another command")
    };
    tokio::runtime::Builder::new_current_thread()
        .build()?
        .block_on(args.plan())
}

/// What is said of a command line that makes no sense.
fn refusal(arguments: &str) -> String {
    plan(arguments).expect_err(arguments).to_string()
}

#[test]
fn a_flag_that_cannot_be_read_is_named_with_what_is_allowed() {
    let url = "http://127.0.0.1:80/";
    for (flags, named, allowed) in [
        ("--schedule sine:5", "--schedule", "poisson:RATE"),
        ("--schedule const:-1", "--schedule", "const:RATE"),
        ("--balance least", "--balance", "pick_first"),
        ("--balance pool:0", "--balance", "1 to 1024"),
        ("--weights paretto", "--weights", "zipf"),
        ("--payload normal:5", "--payload", "lognormal:MEDIAN,SIGMA"),
        ("--to 10.0.0.1", "--to", "HOST:PORT"),
        ("--rate 5 --schedule const:5", "--rate", "--schedule"),
        ("--duration soon", "--duration", "expected number"),
        ("--rate 0", "--rate", "positive"),
        (
            "--weights 1,2,3 -c 2",
            "--weights",
            "3 values for 2 connections",
        ),
        (
            "--weights zipf -c 5 --duration 1s",
            "--weights",
            "--streams 5 or more",
        ),
        ("--threads 0", "--threads", "at least 1"),
        ("--header :path:/x", "--header", "--method"),
        ("--header te:gzip", "--header", "trailers"),
        ("--header host:x", "--header", "--to"),
        ("--method CONNECT", "--method", "tunnel"),
        ("--method PUT --grpc unary", "--method", "--grpc"),
        ("--method B(D", "--method", "invalid HTTP method"),
        (
            "--payload 1 --payload-file x",
            "--payload",
            "--payload-file",
        ),
        (
            "--payload-file /nowhere/message",
            "--payload-file /nowhere/message",
            "",
        ),
        (
            "--response-size uniform:5",
            "--response-size",
            "uniform:A..B",
        ),
        (
            "--response-size 16777217 --grpc unary",
            "--response-size",
            "16777216",
        ),
        ("--method HEAD --response-size 1", "--response-size", "HEAD"),
        ("--clock sun", "--clock", "kernel, process"),
        ("--http1 -m 2", "--streams 2", "use --connections"),
        (
            "--response-size 1 --grpc stream",
            "--response-size",
            "each message",
        ),
        (
            "http://127.0.0.1:81/else",
            "127.0.0.1:81/else",
            "the same path in all",
        ),
        (
            "https://127.0.0.1/",
            "https://127.0.0.1/",
            "http://HOST:PORT",
        ),
    ] {
        let said = refusal(&format!("{url} {flags}"));
        assert!(
            said.contains(named) && said.contains(allowed),
            "{flags}: {said}"
        );
    }
    assert!(refusal("").contains("<URL>"), "somebody must be asked");
}

#[test]
fn an_answer_is_over_by_the_kernels_clock_unless_told_otherwise() {
    let clock = |flags: &str| {
        plan(&format!("http://127.0.0.1:80/ {flags}"))
            .unwrap()
            .clock
    };
    assert_eq!(clock(""), Clock::Kernel);
    assert_eq!(clock("--clock process"), Clock::Process);
}

#[test]
fn what_ends_a_run_is_the_flag_or_the_schedule_or_a_thousand_requests() {
    let budget = |flags: &str| {
        plan(&format!("http://127.0.0.1:80/ {flags}"))
            .unwrap()
            .budget
    };
    let seconds = |seconds| Budget::Duration(std::time::Duration::from_secs(seconds));
    assert_eq!(budget(""), Budget::Requests(1000));
    assert_eq!(budget("--rate 10"), Budget::Requests(1000));
    assert_eq!(budget("--schedule ramp:1..2@7s"), seconds(7));
    assert_eq!(
        budget("--schedule step:1@7s,2@3s -n 5"),
        Budget::Requests(5)
    );
    assert_eq!(budget("--schedule poisson:1 --duration 2s"), seconds(2));
}

#[test]
fn addresses_come_from_the_urls_or_from_to() {
    let target = |text: &str| text.parse::<Target>().unwrap();
    let several = plan("http://10.0.0.1/x http://10.0.0.2:81/x").unwrap();
    assert_eq!(
        several.targets,
        [target("10.0.0.1:80"), target("10.0.0.2:81")]
    );
    let to = plan("--to 10.0.0.1:80,10.0.0.2:81").unwrap();
    assert_eq!(
        (to.url.to_string(), to.targets.len()),
        ("http://10.0.0.1:80/".into(), 2)
    );
    let both = plan("http://shop.test/x --to 10.0.0.9:80 --rate 5").unwrap();
    assert_eq!(both.targets, [target("10.0.0.9:80")]);
    assert_eq!(both.url.host(), Some("shop.test"));
    assert_eq!(both.schedule, Some(Schedule::Const(5.0)));
}

#[test]
fn weights_alone_say_how_many_connections_there_are() {
    assert_eq!(
        plan("http://10.0.0.1/ --weights 9,1,1").unwrap().weights,
        [9, 1, 1]
    );
    assert_eq!(
        plan("http://10.0.0.1/ -c 3 --weights zipf")
            .unwrap()
            .weights,
        [1_000_000, 500_000, 333_333]
    );
}
