//! TCP connections to a host by its name: the addresses are tried one after the other, each with a head start.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpStream;

/// Limit for name resolution and TCP connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Head start of an address over the next one of the same name.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(300);

/// Connects to the first address of a host that answers.
///
/// # Errors
/// What was tried, and why each address failed.
pub async fn connect_tcp(host: &str, port: u16) -> Result<TcpStream, String> {
    let attempt = async {
        let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port))
            .await
            .map_err(|error| error.to_string())?
            .collect();
        let mut attempts: FuturesUnordered<_> = addresses
            .into_iter()
            .enumerate()
            .map(|(position, address)| async move {
                let delay =
                    u32::try_from(position).map_or(Duration::ZERO, |n| NEXT_ADDRESS_AFTER * n);
                tokio::time::sleep(delay).await;
                TcpStream::connect(address)
                    .await
                    .map_err(|error| format!("{address}: {error}"))
            })
            .collect();
        let mut reasons = Vec::new();
        while let Some(result) = attempts.next().await {
            match result {
                Ok(stream) => return Ok(stream),
                Err(reason) => reasons.push(reason),
            }
        }
        if reasons.is_empty() {
            reasons.push("the name has no address".to_owned());
        }
        Err(reasons.join(", "))
    };
    match tokio::time::timeout(CONNECT_TIMEOUT, attempt).await {
        Ok(result) => result,
        Err(_) => Err(format!(
            "no answer within {} seconds",
            CONNECT_TIMEOUT.as_secs()
        )),
    }
}
