//! How much is logged, as `PBS_LOG` says.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// The filter that is meant by a text such as `info` or `warn,backstop_server::sync=debug`; where none is, that of the level
/// `info`, and why.
pub(super) fn filter(text: &str) -> (EnvFilter, Option<String>) {
    // A lone word that is no level would be taken for a part of the program, and all others would be silent.
    let parts = text.split(',').map(str::trim);
    let odd = parts.clone().find(|part| {
        !part.contains(['=', '[', ':']) && !part.is_empty() && part.parse::<LevelFilter>().is_err()
    });
    let parsed = match odd {
        Some(odd) => Err(format!("'{odd}' is no level")),
        None if text.trim().is_empty() => Err("it is empty".to_owned()),
        None => EnvFilter::try_new(text).map_err(|err| err.to_string()),
    };
    match parsed {
        Ok(filter) => (filter, None),
        Err(reason) => {
            let problem = format!(
                "PBS_LOG '{text}' is not understood, logging at level info: {reason}; levels are error, warn, info, debug and \
                 trace, and single parts are named with theirs, as in 'warn,backstop_server::sync=debug'"
            );
            (EnvFilter::new("info"), Some(problem))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn what_is_not_understood_is_said_and_logged_at_info() {
        for good in [
            "info",
            "DEBUG",
            "off",
            "warn,backstop_server::sync=debug",
            "[request]=debug",
        ] {
            assert_eq!(filter(good).1, None, "{good}");
        }
        for bad in [
            "verbose",
            "info,loud",
            "",
            "backstop_server=chatty",
            "a=b=c",
        ] {
            let (filter, problem) = filter(bad);
            assert_eq!(filter.to_string(), "info", "{bad}");
            let problem = problem.unwrap();
            assert!(problem.contains(&format!("'{bad}'")), "{problem}");
        }
    }
}
