//! Any text as a property string, by itself and as each property of the configuration files that has one: refused, or read and
//! written without a change of meaning.
#![no_main]

use backstop_types::config_schema::FILES;
use backstop_types::property_string::{parse, split_list, write};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, Option<&str>)| {
    let (text, default_key) = input;
    if let Ok(pairs) = parse(text, default_key) {
        let known = pairs.iter().map(|(key, value)| (*key, value.as_str()));
        let plain = |key: &str| !key.is_empty() && !key.contains(['"', ',', '=']);
        if pairs.iter().all(|(key, _)| plain(key)) {
            let written = write(known);
            assert_eq!(parse(&written, None).as_ref(), Ok(&pairs), "{written:?}");
        }
    }
    assert!(split_list(text).all(|part| !part.is_empty()));
    for (_, types) in FILES {
        for section in *types {
            for property in section.properties.list {
                let _ = property.schema.parse_text(text);
            }
        }
    }
});
