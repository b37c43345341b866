//! A file as the body of an answer: read in pieces, while it is sent.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;

use crate::datastores::Place;
use crate::http::body::{Body, streamed};

/// Bytes that are read at once.
const PIECE: usize = 1 << 20;

/// The content of `file` from its current position. Two pieces are in memory at most; between pieces no thread waits.
pub fn file_body(file: File, place: Arc<Place>) -> Body {
    let (sender, body) = streamed(1);
    tokio::spawn(async move {
        let mut file = Some(file);
        while let Some(open) = file.take() {
            let read = place.work(move || read_piece(open)).await;
            let piece = match read.unwrap_or_else(|err| Err(io::Error::other(err.to_string()))) {
                Ok((_, piece)) if piece.is_empty() => return,
                Ok((open, piece)) => {
                    file = Some(open);
                    Ok(piece)
                }
                Err(err) => Err(err),
            };
            // a client that went away needs nothing more
            if sender.send(piece).await.is_err() {
                return;
            }
        }
    });
    body
}

fn read_piece(mut file: File) -> io::Result<(File, Bytes)> {
    let mut piece = Vec::with_capacity(PIECE);
    (&mut file).take(PIECE as u64).read_to_end(&mut piece)?;
    Ok((file, piece.into()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use http_body_util::BodyExt;
    use std::io::{Seek, Write};

    #[tokio::test]
    async fn a_file_arrives_as_it_is() {
        let place = Place::new("store1".parse().unwrap(), "/nowhere".into()).unwrap();
        let place = Arc::new(place);
        for length in [0, 1, PIECE, 2 * PIECE + 17] {
            let content: Vec<u8> = (0..length).map(|index| (index % 251) as u8).collect();
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&content).unwrap();
            file.rewind().unwrap();
            assert!(
                file_body(file, Arc::clone(&place))
                    .collect()
                    .await
                    .unwrap()
                    .to_bytes()
                    == content,
                "{length} bytes"
            );
        }
    }
}
