//! Sends what was measured to metric servers, every ten seconds.
//!
//! Each server has a thread of its own, so that a slow one holds up neither the others nor the measuring; what it did not take
//! before the next sample is left out. That a server does not take anything is said once, and once that it does again.

use std::collections::HashMap;
use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError};
use std::sync::{Arc, Weak};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use super::influx::{Line, MetricServer};
use super::{Generation, float, kernel};
use crate::complaint::Complaint;
use crate::config::metric_server;
use crate::server::Server;

/// Time from one sample to the next.
const INTERVAL: Duration = Duration::from_secs(10);

type Sample = Arc<Vec<String>>;

/// The running threads. Dropping it ends them soon, without waiting.
#[derive(Debug)]
pub struct Forwarding {
    _stop: Sender<()>,
    _thread: JoinHandle<()>,
}

impl Forwarding {
    /// Starts to send.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(server: &Arc<Server>) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let server = Arc::downgrade(server);
        let thread = Builder::new()
            .name("metric-servers".to_owned())
            .spawn(move || run(&server, &stopped))?;
        Ok(Self {
            _stop: stop,
            _thread: thread,
        })
    }
}

/// One server and the way to its thread.
struct Receiving {
    server: MetricServer,
    samples: SyncSender<Sample>,
}

fn run(server: &Weak<Server>, stopped: &Receiver<()>) {
    let mut receiving: HashMap<String, Receiving> = HashMap::new();
    let complaint = Complaint::default();
    while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
        let Some(server) = server.upgrade() else {
            return;
        };
        let configured = match metric_server::enabled(server.config()) {
            Ok(configured) => {
                if complaint.ends() {
                    tracing::info!("metric servers can be read again");
                }
                configured
            }
            Err(err) => {
                if complaint.is_news(&err) {
                    tracing::error!(%err, "nothing is sent to metric servers");
                }
                Vec::new()
            }
        };
        receiving.retain(|name, known| {
            let same =
                |(other, server): &(String, MetricServer)| other == name && *server == known.server;
            configured.iter().any(same)
        });
        if configured.is_empty() {
            continue;
        }
        let sample = Arc::new(sample(&server));
        for (name, target) in configured {
            let known = match receiving.get(&name) {
                Some(known) => known,
                None => match begin(&name, &target) {
                    Ok(samples) => receiving.entry(name.clone()).or_insert(Receiving {
                        server: target,
                        samples,
                    }),
                    Err(err) => {
                        tracing::error!(server = name, %err, "unable to start a thread for a metric server");
                        continue;
                    }
                },
            };
            match known.samples.try_send(Arc::clone(&sample)) {
                // It is still busy with the one before.
                Ok(()) | Err(TrySendError::Full(_)) => {}
                // Its thread has died of a fault, which was said; the next round starts another.
                Err(TrySendError::Disconnected(_)) => drop(receiving.remove(&name)),
            }
        }
    }
}

/// Starts the thread of a server; it ends when the sender is dropped.
fn begin(name: &str, server: &MetricServer) -> io::Result<SyncSender<Sample>> {
    let (samples, incoming) = mpsc::sync_channel::<Sample>(1);
    let (name, server) = (name.to_owned(), server.clone());
    Builder::new()
        .name("metric-server".to_owned())
        .spawn(move || {
            // Its reasons may change from time to time, as when it starts anew; that it fails is said once.
            let complaint = Complaint::default();
            for sample in incoming {
                match server.send(&sample) {
                    Err(err) if complaint.is_news(&"it fails") => {
                        tracing::warn!(server = name, %err, "a metric server does not take the metrics");
                    }
                    Ok(()) if complaint.ends() => {
                        tracing::info!(server = name, "a metric server takes the metrics again");
                    }
                    _ => {}
                }
            }
        })?;
    Ok(samples)
}

/// The lines of now.
fn sample(server: &Server) -> Vec<String> {
    let node = server.node();
    let newest = server.metrics().newest();
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let mut lines = vec![processors(node, &read("/proc/stat"), newest.as_deref())];
    lines.push(memory(node, &read("/proc/meminfo")));
    lines.extend(network(node, &read("/proc/net/dev")));
    for (datastore, disk) in newest.iter().flat_map(|newest| &newest.disks) {
        let line = Line::new("blockstat", node);
        let mut line = match datastore {
            Some(name) => line.tag("datastore", name.as_str()),
            None => line,
        };
        for (name, value) in disk.values() {
            line = line.number(name, value);
        }
        lines.push(line);
    }
    let now = jiff::Timestamp::now().as_second();
    lines.iter().filter_map(|line| line.finish(now)).collect()
}

fn processors(node: &str, stat: &str, newest: Option<&Generation>) -> Line {
    const NAMES: [&str; 10] = [
        "user",
        "nice",
        "system",
        "idle",
        "iowait",
        "irq",
        "softirq",
        "steal",
        "guest",
        "guest_nice",
    ];
    let mut line = Line::new("cpustat", node);
    let times = kernel::processor_times(stat);
    for (name, time) in NAMES.into_iter().zip(&times) {
        line = line.number(name, float(*time));
    }
    // What guests use is part of the first two already.
    let total = times
        .iter()
        .take(8)
        .fold(0_u64, |sum, time| sum.saturating_add(*time));
    line = line.number("total", float(total));
    line = line.number("cpu_count", float(kernel::processors(stat)));
    let readings = newest
        .map(|newest| newest.host.as_slice())
        .unwrap_or_default();
    for reading in readings {
        let name = match reading.metric {
            "cpu_current" => "cpu",
            "cpu_iowait" => "iowait_percent",
            "cpu_avg1" => "avg1",
            "cpu_avg5" => "avg5",
            "cpu_avg15" => "avg15",
            _ => continue,
        };
        line = line.number(name, reading.value);
    }
    line
}

fn memory(node: &str, meminfo: &str) -> Line {
    let value = |name| kernel::memory_value(meminfo, name);
    let (total, available) = (value("MemTotal"), value("MemAvailable"));
    let (swap, swap_free) = (value("SwapTotal"), value("SwapFree"));
    Line::new("memory", node)
        .number("memtotal", float(total))
        .number("memfree", float(value("MemFree")))
        .number("memavailable", float(available))
        .number("memused", float(total.saturating_sub(available)))
        .number("memshared", float(value("Shmem")))
        .number("swaptotal", float(swap))
        .number("swapfree", float(swap_free))
        .number("swapused", float(swap.saturating_sub(swap_free)))
}

fn network(node: &str, text: &str) -> Vec<Line> {
    let line = |(name, traffic): (&str, kernel::Traffic)| {
        Line::new("nics", node)
            .tag("instance", name)
            .text("device", name)
            .number("receive", float(traffic.input))
            .number("send", float(traffic.output))
    };
    kernel::interfaces(text).map(line).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn measurements_have_the_fields_of_a_stock_server() {
        let stat = "cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 2\ncpu1 1 2\nintr 5\n";
        let line = processors("n", stat, None).finish(1).unwrap();
        assert_eq!(
            line,
            "cpustat,object=host,host=n user=1,nice=2,system=3,idle=4,iowait=5,irq=6,softirq=7,steal=8,guest=9,guest_nice=10,\
             total=36,cpu_count=2 1000000000\n"
        );
        let text = "MemTotal: 10 kB\nMemFree: 1 kB\nMemAvailable: 4 kB\nShmem: 2 kB\nSwapTotal: 3 kB\nSwapFree: 1 kB\n";
        let line = memory("n", text).finish(1).unwrap();
        assert_eq!(
            line,
            "memory,object=host,host=n memtotal=10240,memfree=1024,memavailable=4096,memused=6144,memshared=2048,swaptotal=3072,\
             swapfree=1024,swapused=2048 1000000000\n"
        );
        let lines = network("n", "Inter-| x\n face |bytes\n eth0: 5 0 0 0 0 0 0 0 7 0\n");
        let line = lines.first().unwrap().finish(1).unwrap();
        assert_eq!(
            line,
            "nics,object=host,host=n,instance=eth0 device=\"eth0\",receive=5,send=7 1000000000\n"
        );
    }
}
