//! Remotes that do not answer, or only at first.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::thread;

use serde_json::json;

use super::world::World;

/// A line that carries its first connection only; later ones end at once. Tells its port.
fn line_for_one_connection(server: std::net::SocketAddr) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for (number, client) in listener.incoming().enumerate() {
            let Ok(client) = client else { return };
            if number > 0 {
                continue;
            }
            let Ok(server) = TcpStream::connect(server) else {
                return;
            };
            for (mut from, mut to) in [
                (client.try_clone().unwrap(), server.try_clone().unwrap()),
                (server, client),
            ] {
                thread::spawn(move || {
                    // Whoever closes the line may do so at any time.
                    let _ = io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Write);
                });
            }
        }
    });
    port
}

#[test]
fn a_remote_that_cannot_be_reached_is_unknown_with_the_reason() {
    let world = World::new();
    world.server.create_failing_sync("copies").unwrap();
    let check = world.wait_for("remote-unreachable", "unknown");
    assert_eq!(check["object"], "remote/dead");
    let evidence = check["evidence"].as_str().unwrap();
    assert!(evidence.starts_with("it does not answer"), "{evidence}");
    assert_eq!(world.plugin("remote-unreachable").0, 3);
}

#[test]
fn a_certificate_is_not_taken_for_trusted_because_a_connection_broke() {
    let world = World::new();
    let remote = json!({
        "name": "far", "host": "127.0.0.1", "port": line_for_one_connection(world.server.address), "auth-id": "admin@pbs",
        "password": world.server.password, "fingerprint": "00:".repeat(31) + "00",
    });
    world.api.post("config/remote", remote).unwrap();
    world.wait_for("remote-unreachable", "unknown");
    assert_eq!(world.checks("certificate-changed"), [json!(null); 0]);
}
