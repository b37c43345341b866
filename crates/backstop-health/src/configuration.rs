//! Configuration files that cannot be read.

use crate::facts::ConfigurationFacts;
use crate::{Code, Finding, Scope, State};

pub fn judge(files: &[ConfigurationFacts], findings: &mut Vec<Finding>) {
    for ConfigurationFacts { file, error } in files {
        let object = format!("configuration/{file}");
        let scope = Scope::default();
        let code = Code::ConfigUnreadable;
        findings.push(match error {
            None => Finding::ok(code, &object, &scope, "it can be read"),
            Some(error) => Finding::ok(code, &object, &scope, error).bad(
                State::Critical,
                None,
                format!("correct {file}; until then nothing of what it says is done"),
            ),
        });
    }
}
