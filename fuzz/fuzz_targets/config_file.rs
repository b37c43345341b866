//! Any text as each of the configuration files: refused with a line number, or written and read again.
#![no_main]

use backstop_types::config_schema::FILES;
use backstop_types::section_config::{SectionConfig, SectionConfigError};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for (name, types) in FILES {
        match SectionConfig::parse(types, name, text) {
            Ok(config) => {
                if let Ok(written) = config.to_text(name) {
                    SectionConfig::parse(types, name, &written).expect("what was written can be read");
                }
            }
            Err(SectionConfigError::Parse { line, .. }) => assert!(line > 0),
            Err(SectionConfigError::Write { .. }) => unreachable!("nothing was written"),
        }
    }
});
