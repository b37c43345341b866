//! Directories packed while they are sent: zip for those who click, tar.zst for those who script.
//!
//! The packers write from a thread of their own, because they cannot be paused. There are at most [`MAX_PACKERS`] of
//! them, so that clients that do not read cannot use up the threads of the server.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

use backstop_format::pxar::accessor::Node;
use backstop_format::pxar::entry::{EntryKind, MODE_CHAR};
use backstop_format::read_at::ReadAt;
use zip::write::SimpleFileOptions;

use super::Archive;
use crate::http::ApiError;
use crate::http::body::{Body, BodySender, streamed};

/// Packed downloads that run at once.
const MAX_PACKERS: usize = 16;
/// Bytes that are sent at once.
const PIECE: usize = 1 << 20;
/// Directories that may lie in each other.
const MAX_DEPTH: usize = 4096;

static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// The right to run a packer.
struct Slot;

impl Slot {
    fn take() -> Result<Self, ApiError> {
        if RUNNING.fetch_add(1, Ordering::Relaxed) < MAX_PACKERS {
            return Ok(Self);
        }
        RUNNING.fetch_sub(1, Ordering::Relaxed);
        Err(ApiError::bad_request(format!(
            "{MAX_PACKERS} directory downloads are running already; try again later"
        )))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Sends what is written to it.
struct BodyWriter {
    sender: BodySender,
    piece: Vec<u8>,
}

impl Write for BodyWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(data);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.piece);
        self.sender
            .blocking_send(Ok(piece.into()))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Runs a packer on a thread; an error breaks the answer off, so that nobody takes it for complete.
fn packed(
    pack: impl FnOnce(&mut BodyWriter) -> io::Result<()> + Send + 'static,
) -> Result<Body, ApiError> {
    let slot = Slot::take()?;
    let (sender, body) = streamed(1);
    std::thread::Builder::new()
        .name("packer".to_owned())
        .spawn(move || {
            let mut writer = BodyWriter {
                sender,
                piece: Vec::with_capacity(PIECE),
            };
            if let Err(err) = pack(&mut writer).and_then(|()| writer.flush()) {
                // the client may have gone away
                let _ = writer.sender.blocking_send(Err(err));
            }
            drop(slot);
        })?;
    Ok(body)
}

/// Reads a file of the archive from its start.
struct FileReader<'a> {
    archive: &'a Archive,
    node: &'a Node,
    offset: u64,
}

impl Read for FileReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let content = self.archive.content(self.node).map_err(io::Error::other)?;
        let count = content.read_at(buf, self.offset)?;
        self.offset = self.offset.saturating_add(count as u64);
        Ok(count)
    }
}

/// Visits a directory and all below it, parents first. Paths begin with the directory's own name.
fn walk(
    archive: &Archive,
    node: &Node,
    path: &str,
    depth: usize,
    visit: &mut dyn FnMut(&str, &Node) -> io::Result<()>,
) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other("directories are nested too deeply"));
    }
    visit(path, node)?;
    if node.entry.kind != EntryKind::Directory {
        return Ok(());
    }
    let directory = archive.directory(node).map_err(io::Error::other)?;
    for child in directory.children().map_err(io::Error::other)? {
        let child = child.map_err(io::Error::other)?;
        let name = String::from_utf8_lossy(&child.entry.name).into_owned();
        let below = if path.is_empty() {
            name
        } else {
            format!("{path}/{name}")
        };
        walk(archive, &child, &below, depth + 1, visit)?;
    }
    Ok(())
}

fn top_name(node: &Node) -> String {
    String::from_utf8_lossy(&node.entry.name).into_owned()
}

/// The directory as zip: directories, files, symbolic links; hard links as files.
pub fn zip(archive: Archive, directory: Node) -> Result<Body, ApiError> {
    packed(move |writer| {
        let mut zip = zip::ZipWriter::new_stream(writer);
        walk(
            &archive,
            &directory,
            &top_name(&directory),
            0,
            &mut |path, node| {
                let node = archive
                    .follow_hardlink(node.clone())
                    .map_err(io::Error::other)?;
                let options = SimpleFileOptions::default()
                    .large_file(true)
                    .unix_permissions(node.entry.metadata.stat.permissions());
                match &node.entry.kind {
                    EntryKind::Directory if path.is_empty() => Ok(()),
                    EntryKind::Directory => {
                        zip.add_directory(path, options).map_err(io::Error::other)
                    }
                    EntryKind::File { .. } => {
                        zip.start_file(path, options).map_err(io::Error::other)?;
                        io::copy(
                            &mut FileReader {
                                archive: &archive,
                                node: &node,
                                offset: 0,
                            },
                            &mut zip,
                        )
                        .map(drop)
                    }
                    EntryKind::Symlink(target) => {
                        let target = String::from_utf8_lossy(target).into_owned();
                        zip.add_symlink(path, target, options)
                            .map_err(io::Error::other)
                    }
                    // zip knows nothing of devices, fifos and sockets
                    _ => Ok(()),
                }
            },
        )?;
        zip.finish().map(drop).map_err(io::Error::other)
    })
}

/// The directory as tar, compressed with zstd.
pub fn tar(archive: Archive, directory: Node) -> Result<Body, ApiError> {
    packed(move |writer| {
        let mut tar = tar::Builder::new(zstd::Encoder::new(writer, 3)?);
        walk(
            &archive,
            &directory,
            &top_name(&directory),
            0,
            &mut |path, node| {
                if path.is_empty() {
                    return Ok(());
                }
                add_to_tar(&mut tar, &archive, path, node)
            },
        )?;
        tar.into_inner()?.finish().map(drop)
    })
}

fn add_to_tar<W: Write>(
    tar: &mut tar::Builder<W>,
    archive: &Archive,
    path: &str,
    node: &Node,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    let node = archive
        .follow_hardlink(node.clone())
        .map_err(io::Error::other)?;
    let stat = &node.entry.metadata.stat;
    header.set_mode(stat.permissions());
    header.set_uid(stat.uid.into());
    header.set_gid(stat.gid.into());
    header.set_mtime(u64::try_from(stat.mtime.seconds).unwrap_or(0));
    header.set_size(0);
    match &node.entry.kind {
        EntryKind::Directory => {
            header.set_entry_type(tar::EntryType::Directory);
            tar.append_data(&mut header, format!("{path}/"), io::empty())
        }
        EntryKind::File { size, .. } => {
            header.set_size(*size);
            tar.append_data(
                &mut header,
                path,
                FileReader {
                    archive,
                    node: &node,
                    offset: 0,
                },
            )
        }
        EntryKind::Symlink(target) => {
            header.set_entry_type(tar::EntryType::Symlink);
            tar.append_link(&mut header, path, String::from_utf8_lossy(target).as_ref())
        }
        EntryKind::Device(device) => {
            let kind = if stat.file_type() == MODE_CHAR {
                tar::EntryType::Char
            } else {
                tar::EntryType::Block
            };
            header.set_entry_type(kind);
            header.set_device_major(u32::try_from(device.major).unwrap_or(u32::MAX))?;
            header.set_device_minor(u32::try_from(device.minor).unwrap_or(u32::MAX))?;
            tar.append_data(&mut header, path, io::empty())
        }
        EntryKind::Fifo => {
            header.set_entry_type(tar::EntryType::Fifo);
            tar.append_data(&mut header, path, io::empty())
        }
        // a socket has no form in tar; a hard link was followed above
        EntryKind::Socket | EntryKind::Hardlink { .. } => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn what_is_written_arrives_and_a_failure_breaks_the_answer_off() {
        let good = packed(|writer| writer.write_all(&vec![7; 3 * PIECE + 5])).unwrap();
        assert!(good.collect().await.unwrap().to_bytes() == vec![7; 3 * PIECE + 5]);
        let bad =
            packed(|writer| writer.write_all(b"some").and(Err(io::Error::other("disk")))).unwrap();
        assert!(bad.collect().await.is_err());
    }
}
