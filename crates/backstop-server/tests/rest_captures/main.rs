//! Replays what was recorded from stock servers and compares the answers.
//!
//! `lists/*.tsv` say for every recorded exchange what is expected; see `list.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod capture;
mod client;
mod compare;
mod list;
mod setting;

use std::sync::Arc;
use std::time::Duration;

use capture::Capture;
use list::{Row, State};
use setting::Setting;
use testbed::stock_root::fixtures;

#[test]
fn every_recorded_exchange_is_accounted_for() {
    list::check_complete(&list::rows());
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_equal_those_of_release_4_2_3() {
    replay("4.2.3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_equal_those_of_release_3_2_4() {
    replay("3.2.4").await;
}

async fn replay(version: &'static str) {
    let setting = Arc::new(
        tokio::task::spawn_blocking(move || {
            tokio::runtime::Handle::current().block_on(Setting::start(version))
        })
        .await
        .unwrap(),
    );
    let only = std::env::var("CAPTURE").ok();
    let rows = list::rows().into_iter().filter(|row| {
        row.version == version
            && row.state != State::Later
            && only
                .as_ref()
                .is_none_or(|only| row.name.contains(only.as_str()))
    });
    let mut late = Vec::new();
    let mut faults = Vec::new();
    let mut count = 0;
    for row in rows {
        count += 1;
        let capture = Capture::read(
            &fixtures(version)
                .join("rest")
                .join(format!("{}.json", row.name)),
        );
        let refused = capture.status_line.contains(" 401 ");
        let setting = Arc::clone(&setting);
        let exchange = tokio::task::spawn_blocking(move || fault(&setting, &row, &capture));
        // Refusals are answered late and change nothing, so they need not wait for each other.
        if refused {
            late.push(exchange);
        } else {
            faults.extend(exchange.await.unwrap());
        }
    }
    for exchange in late {
        faults.extend(exchange.await.unwrap());
    }
    assert!(
        faults.is_empty(),
        "{} of {count} exchanges:\n{}",
        faults.len(),
        faults.join("\n")
    );
    let Ok(setting) = Arc::try_unwrap(setting) else {
        panic!("still in use")
    };
    setting.handle.shutdown(Duration::from_secs(10)).await;
}

fn fault(setting: &Setting, row: &Row, capture: &Capture) -> Option<String> {
    let name = &row.name;
    let answer = match setting.replay(capture, name.ends_with("plain-http")) {
        Ok(answer) => answer,
        Err(err) => return Some(format!("{name}: {err}")),
    };
    let tolerance = if row.state == State::Same {
        row.tolerance()
    } else {
        Default::default()
    };
    let difference = compare::difference(capture, &answer, &setting.root, &tolerance);
    match (row.state, difference) {
        (State::Same, Some(difference)) => Some(format!("{name}: {difference}")),
        (State::Differs, None) => Some(format!(
            "{name}: is the same now, the list says that it differs"
        )),
        _ => None,
    }
}
