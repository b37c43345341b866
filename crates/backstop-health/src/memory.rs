//! What was remembered and could not be read.

use crate::facts::MemoryFacts;
use crate::{Code, Finding, Scope, State};

pub fn judge(memory: &MemoryFacts, findings: &mut Vec<Finding>) {
    let ok = |text: String| Finding::ok(Code::MemoryLost, "health/memory", &Scope::default(), text);
    findings.push(match &memory.aside {
        None => ok("what is remembered of the checks can be read".to_owned()),
        Some(file) => ok(format!(
            "what was remembered of the checks could not be read, or not all of it; it lies in {file}. Acknowledgements, and since when \
             something is as it is, may be missing"
        ))
        .bad(
            State::Warning,
            None,
            format!("acknowledge anew what you know of, look at the disk, then remove the file: rm {file}"),
        ),
    });
}
