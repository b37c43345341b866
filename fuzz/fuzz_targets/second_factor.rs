//! Any text as a user's entry of `tfa.json`, as an otpauth URI and as an address: refused, or written and read again unchanged.
#![no_main]

use backstop_types::second_factor::{Origin, Otpauth, UserFactors, WebauthnConfig};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(uri) = text.parse::<Otpauth>() {
        assert!(!uri.secret.is_empty() && uri.period > 0);
        let again: Otpauth = uri.to_uri().parse().expect("what was written can be read");
        assert_eq!(again, uri);
    }
    if let Ok(origin) = text.parse::<Origin>() {
        assert_eq!(origin.to_string().parse::<Origin>().as_ref(), Ok(&origin));
        assert!(origin.accepts(&origin, true));
    }
    let Ok(value) = serde_json::from_str::<serde_json::Value>(text) else { return };
    let _ = serde_json::from_value::<WebauthnConfig>(value.clone()).map(|config| config.usable_origin());
    for entry in std::iter::once(&value).chain(value.get("users").and_then(|users| users.as_object()).into_iter().flat_map(|users| users.values())) {
        let Ok(factors) = UserFactors::from_json(entry) else { continue };
        let written = factors.to_json().expect("what was read can be written");
        assert_eq!(UserFactors::from_json(&written).as_ref(), Ok(&factors));
        for factor in &factors.totp {
            let _ = factor.entry.generator();
        }
        for factor in &factors.webauthn {
            let _ = (factor.entry.id(), backstop_types::second_factor::CoseKey::from_json(&factor.entry.cred));
        }
    }
});
