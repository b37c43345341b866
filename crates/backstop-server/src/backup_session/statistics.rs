//! What was uploaded through one index writer, or through all writers of a session.
//!
//! Counts only; the sums end up in the manifest's `unprotected.chunk_upload_stats` and in the task log.

use backstop_format::Digest;

/// Sums over chunk uploads. Sizes in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UploadStatistics {
    /// Number of uploaded chunks.
    pub count: u64,
    /// Sum of the plain sizes.
    pub size: u64,
    /// Sum of the sizes as stored.
    pub compressed_size: u64,
    /// How many of them the datastore had already.
    pub duplicates: u64,
}

impl UploadStatistics {
    /// Counts one upload.
    pub fn add(&mut self, size: u64, compressed_size: u64, duplicate: bool) {
        self.count = self.count.saturating_add(1);
        self.size = self.size.saturating_add(size);
        self.compressed_size = self.compressed_size.saturating_add(compressed_size);
        self.duplicates = self.duplicates.saturating_add(u64::from(duplicate));
    }

    /// Adds another sum to this one.
    pub fn merge(&mut self, other: &UploadStatistics) {
        self.count = self.count.saturating_add(other.count);
        self.size = self.size.saturating_add(other.size);
        self.compressed_size = self.compressed_size.saturating_add(other.compressed_size);
        self.duplicates = self.duplicates.saturating_add(other.duplicates);
    }

    /// The record written into the manifest.
    pub fn to_json(self) -> serde_json::Value {
        serde_json::json!({
            "count": self.count,
            "size": self.size,
            "compressed_size": self.compressed_size,
            "duplicates": self.duplicates,
        })
    }

    /// The lines for the task log when an index of `size` bytes in `chunk_count` chunks is closed.
    pub fn log_lines(
        &self,
        name: &str,
        uuid: &[u8; 16],
        csum: &Digest,
        size: u64,
        chunk_count: u64,
    ) -> Vec<String> {
        let uuid: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut lines = vec![
            format!("Upload statistics for '{name}'"),
            format!("UUID: {uuid}"),
            format!("Checksum: {csum}"),
            format!("Size: {size}"),
            format!("Chunk count: {chunk_count}"),
        ];
        if size == 0 || chunk_count == 0 {
            return lines;
        }
        lines.push(format!(
            "Upload size: {} ({}%)",
            self.size,
            percent(self.size, size)
        ));
        let known_to_client = chunk_count.saturating_sub(self.count);
        if known_to_client > 0 || self.duplicates > 0 {
            let all = known_to_client.saturating_add(self.duplicates);
            lines.push(format!(
                "Duplicates: {known_to_client}+{} ({}%)",
                self.duplicates,
                percent(all, chunk_count)
            ));
        }
        if self.size > 0 {
            lines.push(format!(
                "Compression: {}%",
                percent(self.compressed_size, self.size)
            ));
        }
        lines
    }
}

fn percent(part: u64, whole: u64) -> u128 {
    (u128::from(part) * 100)
        .checked_div(u128::from(whole))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statistics_of_a_pushed_image_read_as_in_a_stock_task_log() {
        let mut stats = UploadStatistics::default();
        stats.add(4_194_304, 90_000, false);
        stats.add(4_194_304, 90_000, false);
        stats.add(2_137_485, 60_000, true);
        let lines = stats.log_lines(
            "disk.img.fidx",
            &[0xab; 16],
            &Digest([1; 32]),
            10_526_093,
            3,
        );
        assert_eq!(lines[0], "Upload statistics for 'disk.img.fidx'");
        assert_eq!(lines[1], "UUID: abababababababababababababababab");
        assert_eq!(lines[3], "Size: 10526093");
        assert_eq!(lines[4], "Chunk count: 3");
        assert_eq!(lines[5], "Upload size: 10526093 (100%)");
        assert_eq!(lines[6], "Duplicates: 0+1 (33%)");
        assert_eq!(lines[7], "Compression: 2%");
    }

    #[test]
    fn an_upload_without_duplicates_has_no_line_about_them() {
        let mut stats = UploadStatistics::default();
        stats.add(88, 100, false);
        let lines = stats.log_lines("catalog.pcat1.didx", &[0; 16], &Digest([1; 32]), 88, 1);
        assert_eq!(
            lines[5..],
            [
                "Upload size: 88 (100%)".to_owned(),
                "Compression: 113%".to_owned()
            ]
        );
    }

    #[test]
    fn a_chunk_that_was_uploaded_but_never_used_does_not_underflow_the_duplicates() {
        let mut stats = UploadStatistics::default();
        stats.add(10, 10, false);
        stats.add(10, 10, false);
        assert_eq!(
            stats
                .log_lines("x", &[0; 16], &Digest([1; 32]), 10, 1)
                .len(),
            7
        );
    }
}
