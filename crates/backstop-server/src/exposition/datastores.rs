//! The datastores: whether they are there, how full they are, and what the last garbage collection found.

use backstop_types::Operation;
use backstop_types::record::{DatastoreConfig, GcStatus};

use super::families::{ExpositionError, Families, Gauges, number, truth};
use crate::metrics::Reading;
use crate::server::Server;

/// Shows a number of the last garbage collection.
type OfCollection = (&'static str, &'static str, fn(&GcStatus) -> Option<f64>);

const OF_COLLECTION: &[OfCollection] = &[
    (
        "backstop_datastore_chunks",
        "Chunks in use, as the last garbage collection counted them.",
        |status| Some(number(status.disk_chunks)),
    ),
    (
        "backstop_datastore_chunk_bytes",
        "Bytes of the chunks in use, as they are stored, as the last garbage collection counted them.",
        |status| Some(number(status.disk_bytes)),
    ),
    (
        "backstop_datastore_index_files",
        "Indexes of all snapshots, as the last garbage collection counted them.",
        |status| Some(number(status.index_file_count)),
    ),
    (
        "backstop_datastore_index_bytes",
        "Bytes that all indexes refer to, as the last garbage collection counted them.",
        |status| Some(number(status.index_data_bytes)),
    ),
    (
        "backstop_datastore_deduplication_factor",
        "Bytes that the indexes refer to for each byte that is stored.",
        |status| {
            (status.disk_bytes > 0)
                .then(|| number(status.index_data_bytes) / number(status.disk_bytes))
        },
    ),
    (
        "backstop_datastore_pending_bytes",
        "Bytes of unused chunks that were too young for the last garbage collection.",
        |status| Some(number(status.pending_bytes)),
    ),
    (
        "backstop_datastore_corrupt_chunks",
        "Chunks that are set aside as corrupt, as the last garbage collection counted them.",
        |status| Some(number(status.still_bad)),
    ),
    (
        "backstop_datastore_last_gc_removed_bytes",
        "Bytes that the last garbage collection freed.",
        |status| Some(number(status.removed_bytes)),
    ),
];

/// Adds them, in the order of the configuration.
pub(super) fn add(server: &Server, families: &Families) -> Result<(), ExpositionError> {
    let gauges = |name: &str, help: &str| families.gauges(name, help, &["datastore"]);
    let available = gauges(
        "backstop_datastore_available",
        "Whether the datastore can be used: 0 when its file system is gone or does not answer, or a maintenance mode forbids it.",
    )?;
    let sizes = [
        (
            gauges("backstop_datastore_size_bytes", "Size of its file system.")?,
            "disk_total",
        ),
        (
            gauges(
                "backstop_datastore_used_bytes",
                "Used bytes of its file system.",
            )?,
            "disk_used",
        ),
        (
            gauges(
                "backstop_datastore_available_bytes",
                "Bytes of its file system that the server can use.",
            )?,
            "disk_available",
        ),
    ];
    let of_collection = OF_COLLECTION
        .iter()
        .map(|(name, help, value)| Ok((gauges(name, help)?, value)))
        .collect::<Result<Vec<(Gauges, _)>, ExpositionError>>()?;

    // That they cannot be read is said by who measures them, and by health.
    let configs = server.datastores().configs().unwrap_or_default();
    let measured = server.metrics().newest();
    for config in configs {
        let labels = [config.name.as_str()];
        let collected = status(server, &config);
        available.show(&labels, Some(truth(collected.is_some())))?;
        let readings = measured.as_ref().and_then(|measured| {
            let mut known = measured.datastores.iter();
            known.find(|(name, _)| *name == config.name)
        });
        for (gauges, metric) in &sizes {
            let is_it = |reading: &&Reading| reading.metric == *metric;
            let reading = readings.and_then(|(_, readings)| readings.iter().find(is_it));
            gauges.show(&labels, reading.map(|reading| reading.value))?;
        }
        // Before the first collection nobody has counted.
        let collected = collected.filter(|status| status.upid.is_some());
        for (gauges, value) in &of_collection {
            gauges.show(&labels, collected.as_ref().and_then(value))?;
        }
    }
    Ok(())
}

/// What its last garbage collection found; `None` when the datastore is not available.
fn status(server: &Server, config: &DatastoreConfig) -> Option<GcStatus> {
    let registry = server.datastores();
    if let Some(place) = registry.known_place(config.name.as_str()) {
        place.check().ok()?;
    }
    let datastore = registry.lookup(&config.name, Operation::Read).ok()?;
    datastore.place().check().ok()?;
    Some(datastore.gc_status())
}
