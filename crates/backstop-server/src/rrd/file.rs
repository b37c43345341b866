//! The file that keeps the history of an object: see `docs/formats/rrd.md`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use backstop_datastore::ownership;

use super::series::Series;

const MAGIC: [u8; 8] = *b"BSRRD\0\0\x01";
/// Largest file that is read, bytes. The history of a host takes 1.3 MB.
const MAX_SIZE: u64 = 16 << 20;
/// Bytes of the checksum at the end.
const CHECKSUM: usize = 4;

/// The histories of all values of an object.
pub(super) type Histories = BTreeMap<String, Series>;

/// Writes a file anew; until it is complete, the old one stays.
pub(super) fn store(path: &Path, histories: &Histories) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        ownership::create_dir_all(folder, 0o755)?;
    }
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    ownership::inherit(&file, path)?;
    file.write_all(&encode(histories))?;
    fs::rename(&temporary, path)
}

/// Reads a file. One that is missing is empty.
///
/// # Errors
/// It is damaged, or no such file, or cannot be read.
pub(super) fn load(path: &Path) -> io::Result<Histories> {
    let file = match File::open(path) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Histories::new()),
        other => other?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_SIZE + 1).read_to_end(&mut bytes)?;
    decode(&bytes).ok_or_else(|| {
        let text = format!("{path:?} is damaged, or not a history of this version");
        io::Error::new(io::ErrorKind::InvalidData, text)
    })
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum().to_le_bytes()
}

fn encode(histories: &Histories) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for (name, series) in histories {
        // Names are this program's own and short.
        bytes.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        bytes.extend(name.bytes().take(u8::MAX.into()));
        bytes.extend(series.last.to_le_bytes());
        bytes.extend(series.value.to_le_bytes());
        for ring in &series.rings {
            bytes.extend(ring.count.to_le_bytes());
            bytes.extend(ring.slots.iter().flat_map(|slot| slot.to_le_bytes()));
        }
    }
    bytes.extend(checksum(&bytes));
    bytes
}

fn decode(bytes: &[u8]) -> Option<Histories> {
    let (content, found) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM)?)?;
    if checksum(content) != found {
        return None;
    }
    let mut rest = content.strip_prefix(&MAGIC)?;
    let mut histories = Histories::new();
    while !rest.is_empty() {
        let [length] = take(&mut rest)?;
        let (name, after) = rest.split_at_checked(length.into())?;
        rest = after;
        let mut series = Series {
            last: i64::from_le_bytes(take(&mut rest)?),
            value: f64::from_le_bytes(take(&mut rest)?),
            ..Series::default()
        };
        for ring in &mut series.rings {
            ring.count = u32::from_le_bytes(take(&mut rest)?);
            for slot in &mut ring.slots {
                *slot = f64::from_le_bytes(take(&mut rest)?);
            }
        }
        histories.insert(String::from_utf8(name.to_vec()).ok()?, series);
    }
    Some(histories)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::metrics::Kind;

    #[test]
    fn what_was_stored_is_loaded_and_damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("host/backstop.history");
        assert!(load(&path).unwrap().is_empty());
        let mut histories = Histories::new();
        for name in ["cpu", "netin"] {
            let series = histories.entry(name.to_owned()).or_default();
            series.put(1_700_000_000, Kind::Gauge, 0.25);
        }
        store(&path, &histories).unwrap();
        let loaded = load(&path).unwrap();
        let bits = |histories: &Histories| encode(histories);
        assert_eq!(bits(&loaded), bits(&histories));
        let whole = fs::read(&path).unwrap();
        for position in [0, 7, 8, 20, whole.len() / 2, whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[position] ^= 1;
            assert!(decode(&damaged).is_none(), "{position}");
        }
        for length in [0, 3, 4, 12, whole.len() / 2, whole.len() - 1] {
            assert!(decode(&whole[..length]).is_none(), "{length}");
        }
    }
}
