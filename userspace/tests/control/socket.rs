//! The socket itself, and whatever HTTP a client may send there.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use evenkeel::api::server::{SocketError, listen};

use crate::fake::{Daemon, Directory};
use crate::{json, raw, request};

fn event_loop() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a loop")
}

#[test]
fn only_the_owner_may_use_the_socket() {
    let daemon = Daemon::start("mode");
    let mode = std::fs::metadata(daemon.socket())
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_group_may_use_the_socket_where_one_is_named() {
    let directory = Directory::new("group");
    let runtime = event_loop();
    let _guard = runtime.enter();
    let path = directory.0.join("s");
    let group = std::fs::metadata(&directory.0).expect("there").gid();
    let _listener = listen(&path, Some(group)).expect("a group of ours");
    let metadata = std::fs::metadata(&path).expect("there");
    assert_eq!(metadata.permissions().mode() & 0o777, 0o660);
    assert_eq!(metadata.gid(), group);
}

#[test]
fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
    let directory = Directory::new("stale");
    let runtime = event_loop();
    let _guard = runtime.enter();
    let path = directory.0.join("s");
    drop(listen(&path, None).expect("fresh"));
    let live = listen(&path, None).expect("a dead one is replaced");
    assert!(matches!(listen(&path, None), Err(SocketError::InUse(_))));
    drop(live);
    let file = directory.0.join("file");
    std::fs::write(&file, "").expect("written");
    assert!(matches!(
        listen(&file, None),
        Err(SocketError::NotASocket(_))
    ));
    assert!(file.exists());
}

#[test]
fn requests_that_are_wrong_are_answered_and_change_nothing() {
    let daemon = Daemon::start("raw");
    let large = "x".repeat(70_000);
    for (method, path, body, status) in [
        ("GET", "/", "", "404"),
        ("GET", "/v1/nothing", "", "404"),
        ("GET", "/v1/%zz", "", "400"),
        ("POST", "/v1/status", "", "405"),
        ("GET", "/v1/status?x=1", "", "400"),
        ("GET", "/v1/flows?top=many", "", "400"),
        ("GET", "/v1/explain?client=1.2.3.4:5", "", "400"),
        ("GET", "/v1/pinning?for=5", "", "400"),
        ("PUT", "/v1/services/echo/mode", "", "400"),
        ("PUT", "/v1/services/echo/mode", "{\"mode\":\"l5\"}", "400"),
        (
            "PUT",
            "/v1/services/echo/mode",
            "{\"mode\":\"l7\",\"x\":1}",
            "400",
        ),
        (
            "PUT",
            "/v1/services/nobody/mode",
            "{\"mode\":\"l7\"}",
            "404",
        ),
        ("PUT", "/v1/services/echo/mode", large.as_str(), "413"),
        ("POST", "/v1/reload", "", "200"),
    ] {
        let answer = request(&daemon, method, path, body);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{method} {path}: {answer}"
        );
        let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
        assert!(json(body).is_object(), "{method} {path}: {body}");
    }
    assert!(raw(&daemon, "nonsense\r\n\r\n").starts_with("HTTP/1.1 400"));
    assert_eq!(
        json(&daemon.ok(&["services", "--json"]))["services"][0]["mode"],
        "l4"
    );
}
