//! Any bytes as what browsers and security keys send: refused or parsed, and keys survive storing.
#![no_main]

use backstop_types::second_factor::{
    AssertionResponse, AttestationObject, AuthenticatorData, ClientData, CoseKey, RegistrationResponse,
};
use libfuzzer_sys::fuzz_target;

fn check(data: &AuthenticatorData) {
    if let Some(credential) = &data.credential {
        assert!((1..=1023).contains(&credential.id.len()));
        assert_eq!(CoseKey::from_json(&credential.key.to_json()).as_ref(), Ok(&credential.key));
    }
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(data) = AuthenticatorData::parse(bytes) {
        check(&data);
    }
    if let Ok(object) = AttestationObject::parse(bytes)
        && let Ok(data) = AuthenticatorData::parse(&object.authenticator_data)
    {
        check(&data);
    }
    let _ = ClientData::parse(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(response) = RegistrationResponse::parse(text) {
        let _ = AttestationObject::parse(&response.attestation_object);
        let _ = ClientData::parse(&response.client_data);
    }
    if let Ok(response) = AssertionResponse::parse(text) {
        let _ = AuthenticatorData::parse(&response.authenticator_data);
        let _ = ClientData::parse(&response.client_data);
    }
});
