//! Where the running server of an installation can be reached: a small file that the server writes
//! when it listens and removes when it ends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use backstop_server::{DEFAULT_PORT, Roots};

fn file(roots: &Roots) -> PathBuf {
    roots.run().join("backstop.address")
}

/// The file of a running server; removed when dropped.
pub struct Published(PathBuf);

impl Published {
    /// Writes down the address of a server that listens.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn new(roots: &Roots, address: SocketAddr) -> std::io::Result<Self> {
        let path = file(roots);
        std::fs::write(&path, format!("{address}\n"))?;
        Ok(Self(path))
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The address to reach the installation's server at, if one may be running.
pub fn find(roots: &Roots) -> Option<SocketAddr> {
    let written = std::fs::read_to_string(file(roots))
        .ok()
        .and_then(|text| text.trim().parse::<SocketAddr>().ok());
    match written {
        Some(address) => Some(reachable(address)),
        None if *roots == Roots::system() => Some((Ipv4Addr::LOCALHOST, DEFAULT_PORT).into()),
        None => None,
    }
}

/// A server that listens on all addresses is reached on the loopback one.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_address_is_known_while_the_server_runs() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::below(dir.path());
        std::fs::create_dir_all(roots.run()).unwrap();
        assert_eq!(find(&roots), None);
        let published = Published::new(&roots, "0.0.0.0:1234".parse().unwrap()).unwrap();
        assert_eq!(find(&roots), Some("127.0.0.1:1234".parse().unwrap()));
        drop(published);
        assert_eq!(find(&roots), None);
    }
}
