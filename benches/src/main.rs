//! Benchmarks of the whole program, each printing ratios measured in one run on one machine.
//!
//! `cargo xtask bench NAME` builds everything with optimisation and runs this. Where `BACKSTOP_STOCK_BIN`
//! names a folder with the stock programs (and the caller is root), they are measured beside ours.

mod backup;
mod bound;
mod gc;
mod listing;
mod measure;
mod options;
mod page_cache;
mod ping;
mod sync;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

/// The benchmarks and what each measures.
pub const BENCHMARKS: &[(&str, &str)] = &[
    (
        "backup",
        "first backup, unchanged backup and restore of a tree and an image; metadata mode on many files",
    ),
    (
        "gc",
        "garbage collection of 10^5 and 10^6 small chunks, beside one utimensat for each index entry",
    ),
    (
        "listing",
        "lists of 1,000 groups with 100 snapshots each, beside one pass over the directory",
    ),
    (
        "page-cache",
        "page cache that the server leaves filled after backup, verification and garbage collection of 2 GiB",
    ),
    ("ping", "answers of /ping while 16 backups start at once"),
    (
        "sync",
        "pulls over a line with 0, 20 and 100 ms round trip and 1 Gbit/s; 1,000 groups that have not changed",
    ),
    (
        "verify",
        "verification, beside reading and hashing on all cores",
    ),
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let Some(name) = words.next() else {
        for (name, what) in BENCHMARKS {
            println!("{name:10} {what}");
        }
        return Ok(());
    };
    let rest: Vec<String> = words.collect();
    match name.as_str() {
        "backup" => backup::run(&binary()?, &rest),
        "bound" => {
            let [path, kind] = rest.as_slice() else {
                bail!("bound needs a path and a kind")
            };
            bound::Bound::print(path.as_ref(), kind)
        }
        "gc" => gc::run(&rest),
        "gc-run" => {
            let [dir] = rest.as_slice() else {
                bail!("gc-run needs a folder")
            };
            gc::collect(dir.as_ref())
        }
        "listing" => listing::run(&binary()?, &rest),
        "listing-pass" => {
            let [store] = rest.as_slice() else {
                bail!("listing-pass needs a folder")
            };
            listing::pass(store.as_ref())
        }
        "page-cache" => page_cache::run(&binary()?, &rest),
        "sync" => sync::run(&binary()?, &rest),
        "verify" => verify::run(&binary()?, &rest),
        "ping" => ping::run(&binary()?),
        other => bail!("no such benchmark: {other}"),
    }
}

/// The `backstop` program that was built beside this one.
fn binary() -> Result<PathBuf> {
    let own = std::env::current_exe().context("finding this program")?;
    let path = own
        .parent()
        .context("this program has no folder")?
        .join("backstop");
    if !path.is_file() {
        bail!(
            "{} is missing: run the benchmarks with `cargo xtask bench`",
            path.display()
        );
    }
    Ok(path)
}
