//! Any bytes as a pxar archive, with and without a payload stream: refused, or read to its end by both readers.
#![no_main]

use std::io::{Cursor, Read};

use backstop_format::pxar::accessor::{Accessor, Node};
use backstop_format::pxar::decoder::{Decoder, Event};
use backstop_format::pxar::entry::EntryKind;
use backstop_format::read_at::ReadAt;
use libfuzzer_sys::fuzz_target;

/// Most entries that the random reader visits: an archive may name one place many times.
const MAX_VISITS: usize = 2000;

fuzz_target!(|data: &[u8]| {
    let split = data.len().min(data.first().copied().unwrap_or(0) as usize * 4);
    let (payload, archive) = data.split_at(split);
    for archive in [data, archive] {
        sequential(Decoder::new(archive));
        sequential(Decoder::split_seekable(archive, Cursor::new(payload)));
        if let Ok(accessor) = Accessor::new(archive.to_vec()) {
            random(&accessor);
        }
        if let Ok(accessor) = Accessor::split(archive.to_vec(), payload.to_vec()) {
            random(&accessor);
        }
    }
});

fn sequential<R: Read, P: Read>(mut decoder: Decoder<R, P>) {
    let mut buffer = Vec::new();
    while let Ok(Some(event)) = decoder.next_event() {
        if let Event::Entry(entry) = event
            && matches!(entry.kind, EntryKind::File { .. })
            && let Ok(content) = decoder.content()
        {
            buffer.clear();
            let _ = content.take(1 << 20).read_to_end(&mut buffer);
        }
    }
}

fn random<R: ReadAt, P: ReadAt>(accessor: &Accessor<R, P>) {
    let mut open: Vec<Node> = vec![accessor.root().clone()];
    let mut visits = 0;
    while let Some(node) = open.pop() {
        visits += 1;
        if visits > MAX_VISITS {
            return;
        }
        match node.entry.kind {
            EntryKind::Directory => {
                let Ok(directory) = accessor.directory(&node) else { continue };
                let _ = directory.lookup(b"a.txt");
                if let Ok(children) = directory.children() {
                    open.extend(children.flatten());
                }
            }
            EntryKind::Hardlink { .. } => {
                let _ = accessor.follow_hardlink(node);
            }
            _ => {
                if let Ok(content) = accessor.content(&node) {
                    let _ = content.read_at(&mut [0; 64], 0);
                }
            }
        }
    }
}
