//! Runs the two ends of a pipeline together: the source that feeds chunks and the upload that drains them.
//!
//! Both have to succeed. When one fails the other is stopped, and the failure that came first is reported.

use std::future::Future;

use super::chunk_stage::Stage;
use crate::error::Result;

/// Waits for both ends.
///
/// # Errors
/// That of the end that failed by itself. A failing source never makes the upload fail, so when both fail it is the
/// upload's.
pub(crate) async fn join<S, U>(
    stage: &Stage,
    source: impl Future<Output = Result<S>>,
    upload: impl Future<Output = Result<U>>,
) -> Result<(S, U)> {
    let source = async {
        let result = source.await;
        if result.is_err() {
            stage.cancel();
        }
        result
    };
    let upload = async {
        let result = upload.await;
        if result.is_err() {
            stage.cancel();
        }
        result
    };
    let (source, upload) = tokio::join!(source, upload);
    let upload = upload?;
    Ok((source?, upload))
}
