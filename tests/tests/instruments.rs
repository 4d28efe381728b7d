//! The instruments themselves, with no balancer between: what the clients say is what the backends say.

use anyhow::{Result, ensure};
use evenkeel_tests::{PORT, Setup, serve_python};
use serde_json::json;

#[test]
fn clients_and_backends_agree_when_nothing_stands_between_them() -> Result<()> {
    let mut setup = Setup::backends(1);
    setup.spec.gateway = true;
    let stage = setup.without_backends()?;
    let mut echo = stage.echo(0, &[])?;
    let target = stage.lab.backend_address(0, PORT)?.to_string();
    let unary = ["unary", &target, "--number", "200", "--connections", "3"];
    let answered = stage.script("grpc_client.py", &unary)?;
    ensure!(
        answered == json!({ "ok": 600, "failed": {}, "per_backend": { "b1": 600 } }),
        "{answered}"
    );
    let answered = stage.script("grpc_client.py", &["bidi", &target, "--number", "100"])?;
    ensure!(answered["ok"] == 100, "{answered}");
    echo.stop()?;
    let served: serde_json::Value = serde_json::from_str(&echo.output()?)?;
    ensure!(
        served["streams"] == 700 && served["connections"] == 4,
        "{served}"
    );
    Ok(())
}

#[test]
fn the_python_peers_understand_each_other() -> Result<()> {
    let mut setup = Setup::backends(2);
    setup.spec.gateway = true;
    let stage = setup.without_backends()?;
    let (grpc, web) = (
        stage.lab.backend_address(0, PORT)?.to_string(),
        stage.lab.backend_address(1, PORT)?.to_string(),
    );
    let servers = [("grpc_server.py", &grpc), ("web_server.py", &web)];
    let mut running = Vec::new();
    for (namespace, (server, address)) in stage.lab.backends().iter().zip(servers) {
        running.push(serve_python(&stage, namespace, server, address)?);
    }
    let seen = stage.script("grpc_semantics.py", &[&grpc])?;
    ensure!(
        seen["fail"]["reason"] == "wanted" && seen["deadline_forwarded"] == true,
        "{seen}"
    );
    let seen = stage.script("websocket_client.py", &[&web, "100"])?;
    ensure!(
        seen == json!({ "status": "101", "accepted": true, "echoed": 100, "closed": true }),
        "{seen}"
    );
    Ok(())
}
