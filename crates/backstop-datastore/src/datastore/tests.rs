//! Promises of creating and opening datastores.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::fixture::{TestStore, scratch_dir, tuning};

fn create(path: &Path, reuse: bool) -> Result<()> {
    Datastore::create(
        path,
        &CreateOptions {
            reuse,
            skip_access_time_check: false,
        },
        &mut |_| {},
    )
}

#[test]
fn a_datastore_is_created_as_stock_does_and_can_be_taken_over() {
    let dir = scratch_dir();
    let path = dir.path().join("deep/store");
    let mut percents = vec![];
    Datastore::create(&path, &CreateOptions::default(), &mut |percent| {
        percents.push(percent)
    })
    .unwrap();
    assert_eq!(percents, (1..100).collect::<Vec<_>>());
    let mode = |name: &str| path.join(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (
            mode(""),
            mode(".lock"),
            mode(".chunks"),
            mode(".chunks/ffff")
        ),
        (0o755, 0o644, 0o750, 0o750)
    );
    assert_eq!(
        std::fs::read_dir(path.join(".chunks")).unwrap().count(),
        65536
    );
    assert!(matches!(
        create(&path, false),
        Err(DatastoreError::NotCreatable { .. })
    ));

    create(&path, true).unwrap();
    std::fs::set_permissions(
        path.join(".chunks/1234"),
        std::fs::Permissions::from_mode(0o755),
    )
    .unwrap();
    let error = create(&path, true).unwrap_err().to_string();
    assert!(
        error.contains("1234") && error.contains("755") && error.contains("750"),
        "{error}"
    );
    std::fs::remove_dir(path.join(".chunks/1234")).unwrap();
    let error = create(&path, true).unwrap_err().to_string();
    assert!(
        error.contains("1234") && error.contains("does not exist"),
        "{error}"
    );
}

#[test]
fn a_directory_with_other_content_is_refused() {
    let dir = scratch_dir();
    for name in ["lost+found", ".hidden"] {
        std::fs::create_dir(dir.path().join(name)).unwrap();
    }
    check_empty(dir.path()).unwrap();
    std::fs::write(dir.path().join("letter.txt"), "").unwrap();
    let error = create(dir.path(), false).unwrap_err().to_string();
    assert!(error.contains("datastore path not empty"), "{error}");
    for path in ["/", "relative/path"] {
        assert!(matches!(
            create(Path::new(path), false),
            Err(DatastoreError::NotCreatable { .. })
        ));
    }
    assert!(create(&dir.path().join("absent"), true).is_err());
}

#[test]
fn usage_is_that_of_the_file_system() {
    let test = TestStore::empty();
    let usage = test.store.usage().unwrap();
    assert!(usage.total >= usage.used && usage.total >= usage.available && usage.total > 0);
}

#[test]
fn two_handles_on_a_store_know_each_others_writers() {
    let test = TestStore::empty();
    let other = Datastore::open(
        test.store.name(),
        &test.path(),
        &test.dir.path().join("locks"),
        tuning(),
    )
    .unwrap();
    let _writer = other.hold_writer().unwrap();
    assert!(test.store.process_lock.oldest_writer().is_some());
}
