//! What the archiver passes over, and what it says then.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use backstop_client::archive::*;
use backstop_format::catalog::CatalogWriter;
use backstop_format::pxar::accessor::Accessor;
use backstop_format::read_at::ReadAt as _;

use crate::support::*;

/// A sink that changes a file as soon as it sees the mark.
struct Meddler<'a> {
    data: Vec<u8>,
    mark: &'a [u8],
    meddle: Option<Box<dyn FnOnce() + 'a>>,
}

impl std::io::Write for Meddler<'_> {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.data.extend_from_slice(data);
        if data
            .windows(self.mark.len())
            .any(|window| window == self.mark)
            && let Some(meddle) = self.meddle.take()
        {
            meddle();
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

const SIZE: usize = 3 << 20;

fn changed_while_read(change: impl Fn(&Path)) -> (Vec<u8>, Vec<String>) {
    let source = tempfile::tempdir().unwrap();
    let path = source.path().join("f");
    fs::write(&path, [&[7; 100][..], &vec![1; SIZE - 100]].concat()).unwrap();
    let sink = Meddler {
        data: Vec::new(),
        mark: &[7; 100],
        meddle: Some(Box::new(|| change(&path))),
    };
    let lines = Lines::default();
    let (_, sink) = create_unified(
        source.path(),
        &CreateOptions::default(),
        sink,
        None::<&mut CatalogWriter<Vec<u8>>>,
        &lines,
    )
    .unwrap();
    let accessor = Accessor::new(sink.data.clone()).unwrap();
    let node = accessor.lookup(b"f").unwrap().unwrap();
    let mut content = vec![0; SIZE];
    accessor
        .content(&node)
        .unwrap()
        .read_exact_at(&mut content, 0)
        .unwrap();
    (content, lines.take())
}

#[test]
fn a_file_that_shrinks_is_padded_with_zeros() {
    let (content, lines) = changed_while_read(|path| {
        fs::OpenOptions::new()
            .write(true)
            .open(path)
            .unwrap()
            .set_len(2 << 20)
            .unwrap();
    });
    assert_eq!(
        lines,
        ["warning: file size shrunk while reading: \"f\", file will be padded with zeros!"]
    );
    assert!(content[100..2 << 20].iter().all(|&byte| byte == 1));
    assert!(content[2 << 20..].iter().all(|&byte| byte == 0));
}

#[test]
fn a_file_that_grows_is_cut() {
    let (content, lines) = changed_while_read(|path| {
        fs::OpenOptions::new()
            .write(true)
            .open(path)
            .unwrap()
            .set_len(8 << 20)
            .unwrap();
    });
    assert_eq!(
        lines,
        ["warning: file size increased while reading: \"f\", file will be truncated!"]
    );
    assert!(content[100..].iter().all(|&byte| byte == 1));
}

#[test]
fn unreadable_files_are_passed_over_with_a_warning() {
    if !is_root() {
        return;
    }
    let source = tempfile::tempdir().unwrap();
    fs::set_permissions(source.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(source.path().join("secret"), b"x").unwrap();
    fs::write(source.path().join("open"), b"x").unwrap();
    fs::set_permissions(
        source.path().join("secret"),
        fs::Permissions::from_mode(0o000),
    )
    .unwrap();
    fs::create_dir(source.path().join("closed")).unwrap();
    fs::set_permissions(
        source.path().join("closed"),
        fs::Permissions::from_mode(0o000),
    )
    .unwrap();
    let lines = Lines::default();
    // File permissions are checked against the thread's own identity.
    let archive = std::thread::scope(|scope| {
        let archive = scope.spawn(|| {
            rustix::thread::set_thread_gid(rustix::process::Gid::from_raw(65534)).unwrap();
            rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(65534)).unwrap();
            unified(source.path(), &CreateOptions::default(), &lines).1
        });
        archive.join().unwrap()
    });
    assert_eq!(
        lines.take(),
        [
            "failed to open file: \"closed\": access denied",
            "failed to open file: \"secret\": access denied"
        ]
    );
    let accessor = Accessor::new(archive).unwrap();
    assert!(accessor.lookup(b"open").unwrap().is_some());
    assert!(accessor.lookup(b"secret").unwrap().is_none());
}

#[test]
fn mount_points_are_archived_empty_unless_their_device_is_wanted() {
    if !is_root() {
        return;
    }
    let source = tempfile::tempdir().unwrap();
    let inside = source.path().join("mnt");
    fs::create_dir(&inside).unwrap();
    let mount = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "none"])
        .arg(&inside)
        .status();
    if !mount.is_ok_and(|status| status.success()) {
        eprintln!("skipped: cannot mount");
        return;
    }
    let result = std::panic::catch_unwind(|| {
        fs::write(inside.join("f"), b"x").unwrap();
        let lines = Lines::default();
        let has_file = |devices| {
            let options = CreateOptions {
                devices,
                ..CreateOptions::default()
            };
            let accessor = Accessor::new(unified(source.path(), &options, &lines).1).unwrap();
            assert!(accessor.lookup(b"mnt").unwrap().is_some());
            accessor.lookup(b"mnt/f").unwrap().is_some()
        };
        assert!(!has_file(DeviceSet::SourceAnd(Vec::new())));
        assert_eq!(lines.take(), ["skipping mount point: \"mnt\""]);
        assert!(has_file(DeviceSet::SourceAnd(vec![inside.clone()])));
        assert!(has_file(DeviceSet::All));
        assert_eq!(lines.take(), [""; 0]);
    });
    let unmounted = std::process::Command::new("umount")
        .arg(&inside)
        .status()
        .unwrap();
    assert!(unmounted.success());
    result.unwrap();
}

#[test]
fn virtual_file_systems_and_files_are_no_sources() {
    let lines = Lines::default();
    let options = CreateOptions::default();
    let archive = |path: &Path| {
        let none = None::<&mut CatalogWriter<Vec<u8>>>;
        create_unified(path, &options, std::io::sink(), none, &lines).map(|_| ())
    };
    assert!(matches!(
        archive(Path::new("/proc/sys")),
        Err(ArchiveError::BadSource { .. })
    ));
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("f"), b"x").unwrap();
    std::os::unix::fs::symlink(".", source.path().join("link")).unwrap();
    assert!(archive(&source.path().join("f")).is_err());
    assert!(archive(&source.path().join("link")).is_err());
    assert!(archive(&source.path().join("missing")).is_err());
}
