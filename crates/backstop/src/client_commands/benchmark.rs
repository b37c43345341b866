//! `benchmark`: how fast this machine prepares data for a backup, and how fast a server takes it.

use std::process::ExitCode;
use std::time::Duration;

use backstop_client::benchmark::{self, LocalSpeeds, Measurement};
use serde_json::{Map, Value, json};

use super::parameters::{KEY, REPOSITORY};
use super::server::{self, Server};
use crate::command::{Arguments, Command, Parameter};
use crate::output::{self, Column, OUTPUT_FORMAT, Record};

/// How long uploads are measured.
const UPLOAD_TIME: Duration = Duration::from_secs(5);
/// How long each of the other speeds is measured.
const LOCAL_TIME: Duration = Duration::from_secs(1);

/// The results.
pub const RESULTS: Record = Record::new(&[
    Column::text("tls")
        .titled("TLS (maximal backup upload speed)")
        .rendered(speed),
    Column::text("sha256")
        .titled("SHA256 checksum computation speed")
        .rendered(speed),
    Column::text("compress")
        .titled("ZStd level 1 compression speed")
        .rendered(speed),
    Column::text("decompress")
        .titled("ZStd level 1 decompression speed")
        .rendered(speed),
    Column::text("verify")
        .titled("Chunk verification speed")
        .rendered(speed),
    Column::text("aes256_gcm")
        .titled("AES256 GCM encryption speed")
        .rendered(speed),
]);

/// The speeds of the machine that counts as 100 percent, in bytes per second.
const TOP: [(&str, f64); 6] = [
    ("tls", 1235e6),
    ("sha256", 2022e6),
    ("compress", 752e6),
    ("decompress", 1198e6),
    ("verify", 758e6),
    ("aes256_gcm", 3645e6),
];

fn speed(value: &Value, _: &Value) -> anyhow::Result<String> {
    let top = value.get("top").and_then(Value::as_f64).unwrap_or(1.0);
    Ok(match value.get("speed").and_then(Value::as_f64) {
        None => "not tested".to_string(),
        Some(speed) => format!("{:.2} MB/s ({:.0}%)", speed / 1e6, speed * 100.0 / top),
    })
}

/// `benchmark`
pub fn command() -> Command {
    Command::new(
        "Measure the speeds that a backup depends on; with a repository also that of the upload.",
        benchmark,
    )
    .options(REPOSITORY)
    .options(KEY)
    .option(
        Parameter::flag(
            "no-cache",
            "Ask the server to bypass its local cache of an object store.",
        )
        .default("false"),
    )
    .option(OUTPUT_FORMAT)
}

fn benchmark(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let upload = match server::repository(arguments) {
        Ok(_) => Some(server::block_on(async {
            let server = Server::connect(arguments).await?;
            let store = server.repository.store().as_str();
            let no_cache = arguments.flag("no-cache");
            Ok(benchmark::upload(&server.client, store, no_cache, UPLOAD_TIME).await?)
        })?),
        // A repository that is named but wrong is an error; none at all means this machine alone.
        Err(error) if arguments.given("repository").is_some() => return Err(error),
        Err(_) => None,
    };
    if let Some(upload) = &upload {
        output::err(&upload_lines(upload));
    }
    let local = benchmark::local(LOCAL_TIME)?;
    output::err(&local_lines(&local));
    output::print_record(&RESULTS, &results(upload.as_ref(), &local), arguments)?;
    Ok(ExitCode::SUCCESS)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a mean of a few thousand blocks"
)]
fn upload_lines(upload: &Measurement) -> String {
    let seconds = upload.elapsed.as_secs();
    let each = upload.elapsed.as_secs_f64() * 1e6 / (upload.blocks.max(1) as f64);
    format!(
        "Uploaded {} chunks in {seconds} seconds.\nTime per request: {each:.0} microseconds.\nTLS speed: {:.2} MB/s\n",
        upload.blocks,
        upload.speed() / 1e6
    )
}

fn local_lines(local: &LocalSpeeds) -> String {
    [
        ("SHA256", local.sha256),
        ("Compression", local.compress),
        ("Decompress", local.decompress),
        ("AES256/GCM", local.encrypt),
        ("Verify", local.verify),
    ]
    .iter()
    .map(|(name, speed)| format!("{name} speed: {:.2} MB/s\n", speed / 1e6))
    .collect()
}

fn results(upload: Option<&Measurement>, local: &LocalSpeeds) -> Value {
    let speeds = [
        upload.map(Measurement::speed),
        Some(local.sha256),
        Some(local.compress),
        Some(local.decompress),
        Some(local.verify),
        Some(local.encrypt),
    ];
    let members: Map<String, Value> = TOP
        .iter()
        .zip(speeds)
        .map(|((name, top), speed)| {
            let result = match speed {
                Some(speed) => json!({ "speed": speed, "top": top }),
                None => json!({ "top": top }),
            };
            ((*name).to_string(), result)
        })
        .collect();
    Value::Object(members)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::output::Style;

    #[test]
    fn each_speed_is_compared_with_the_machine_of_reference() {
        let local = LocalSpeeds {
            sha256: 1011e6,
            compress: 752e6,
            decompress: 1e6,
            encrypt: 7290e6,
            verify: 379e6,
        };
        let text = RESULTS.render(&results(None, &local), &Style::PLAIN);
        for (label, value) in [
            ("TLS (maximal backup upload speed)", "not tested"),
            ("SHA256 checksum computation speed", "1011.00 MB/s (50%)"),
            ("ZStd level 1 compression speed", "752.00 MB/s (100%)"),
            ("AES256 GCM encryption speed", "7290.00 MB/s (200%)"),
        ] {
            let line = text.lines().find(|line| line.contains(label)).unwrap();
            assert!(line.contains(value), "{line}");
        }
    }
}
