//! The two ceremonies of WebAuthn: making a credential, and using it.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use backstop_types::UserId;
use backstop_types::second_factor::{
    AssertionResponse, AttestationFormat, AttestationObject, AuthenticatorData, ClientData,
    CoseKey, Origin, RegistrationResponse, SecondFactorError, WebauthnConfig, WebauthnCredential,
    decode_text, encode_bytes,
};
use serde_json::{Map, Value, json};

use super::pending::LIFETIME;
use super::signature;

const fn wrong(reason: &'static str) -> SecondFactorError {
    SecondFactorError {
        what: "answer of the security key",
        reason,
    }
}

/// This server as browsers and security keys see it.
#[derive(Debug)]
pub(super) struct RelyingParty {
    name: String,
    id: String,
    id_hash: Vec<u8>,
    origin: Origin,
    subdomains: bool,
}

impl RelyingParty {
    /// The relying party that is configured.
    ///
    /// # Errors
    /// When the configuration is not complete, or cannot work.
    pub(super) fn of(config: &WebauthnConfig) -> Result<Self, SecondFactorError> {
        Ok(Self {
            name: config.rp.clone(),
            id: config.id.clone(),
            id_hash: digest(&SHA256, config.id.as_bytes()).as_ref().to_vec(),
            origin: config.usable_origin()?,
            subdomains: config.allow_subdomains.unwrap_or(true),
        })
    }

    /// What the browser passes to `navigator.credentials.create`. Attestation of the maker is not asked for, and touching the
    /// key is enough: the password is the other factor.
    pub(super) fn creation_options(
        &self,
        user: &UserId,
        challenge: &str,
        own_keys: &[Vec<u8>],
    ) -> Value {
        let algorithms: Vec<Value> = CoseKey::ALGORITHMS
            .iter()
            .map(|algorithm| json!({ "type": "public-key", "alg": algorithm }))
            .collect();
        json!({ "publicKey": {
            "rp": { "name": self.name, "id": self.id },
            "user": {
                "id": encode_bytes(uuid::Uuid::new_v4().as_bytes()),
                "name": user,
                "displayName": user,
            },
            "challenge": challenge,
            "pubKeyCredParams": algorithms,
            "timeout": LIFETIME * 1000,
            "excludeCredentials": descriptors(own_keys),
            "authenticatorSelection": {
                "residentKey": "discouraged",
                "requireResidentKey": false,
                "userVerification": "discouraged",
            },
            "attestation": "none",
        }})
    }

    /// What the browser passes to `navigator.credentials.get`.
    pub(super) fn request_options(&self, challenge: &str, own_keys: &[Vec<u8>]) -> Value {
        json!({ "publicKey": {
            "challenge": challenge,
            "timeout": LIFETIME * 1000,
            "rpId": self.id,
            "allowCredentials": descriptors(own_keys),
            "userVerification": "discouraged",
        }})
    }

    /// Checks a new credential.
    ///
    /// # Errors
    /// When anything of the answer is not as the standard asks, or the key could not be used later.
    pub(super) fn register(
        &self,
        response: &RegistrationResponse,
        challenge: &str,
    ) -> Result<WebauthnCredential, SecondFactorError> {
        self.check_client_data(&response.client_data, "webauthn.create", challenge)?;
        let object = AttestationObject::parse(&response.attestation_object)?;
        let data = AuthenticatorData::parse(&object.authenticator_data)?;
        self.check_authenticator(&data)?;
        let credential = data.credential.ok_or(wrong("it holds no new credential"))?;
        let algorithm = credential.key.algorithm();
        if !CoseKey::ALGORITHMS.contains(&algorithm) {
            return Err(wrong("the key's algorithm was not offered"));
        }
        let key = signature::usable(&credential.key)?;
        match object.format {
            AttestationFormat::SelfSigned {
                algorithm: own,
                signature,
            } => {
                let message = signed(&object.authenticator_data, &response.client_data);
                if own != algorithm || key.verify_sig(&message, &signature).is_err() {
                    return Err(wrong("the key did not sign its own registration"));
                }
            }
            // No maker's word was asked for, so none is believed: it adds nothing, and takes nothing away.
            AttestationFormat::None | AttestationFormat::Other => {}
        }
        Ok(WebauthnCredential {
            cred_id: Value::String(encode_bytes(&credential.id)),
            cred: credential.key.to_json(),
            counter: data.counter,
            backup_eligible: Some(data.backup_eligible),
            backup_state: Some(data.backup_state),
            other: Map::new(),
        })
    }

    /// Checks the use of a credential, and takes over its counter.
    ///
    /// # Errors
    /// When anything of the answer is not as the standard asks.
    pub(super) fn authenticate(
        &self,
        response: &AssertionResponse,
        credential: &mut WebauthnCredential,
    ) -> Result<(), SecondFactorError> {
        self.check_client_data(&response.client_data, "webauthn.get", &response.challenge)?;
        let data = AuthenticatorData::parse(&response.authenticator_data)?;
        self.check_authenticator(&data)?;
        let key = signature::usable(&CoseKey::from_json(&credential.cred)?)?;
        let message = signed(&response.authenticator_data, &response.client_data);
        key.verify_sig(&message, &response.signature)
            .map_err(|_| wrong("its signature is wrong"))?;
        if (data.counter > 0 || credential.counter > 0) && data.counter <= credential.counter {
            return Err(wrong(
                "its counter did not go up, which points to a copy of the key; remove the key if there is one",
            ));
        }
        credential.counter = data.counter;
        for (stored, now) in [
            (&mut credential.backup_eligible, data.backup_eligible),
            (&mut credential.backup_state, data.backup_state),
        ] {
            if stored.unwrap_or(false) != now {
                *stored = Some(now);
            }
        }
        Ok(())
    }

    fn check_client_data(
        &self,
        bytes: &[u8],
        ceremony: &str,
        challenge: &str,
    ) -> Result<(), SecondFactorError> {
        let data = ClientData::parse(bytes)?;
        if data.ceremony != ceremony {
            return Err(wrong("it is for another ceremony"));
        }
        let expected = decode_text(challenge).unwrap_or_default();
        if expected.is_empty() || verify_slices_are_equal(&expected, &data.challenge).is_err() {
            return Err(wrong("it answers another challenge"));
        }
        if data.cross_origin {
            return Err(wrong("it was given inside another site's page"));
        }
        if !self.origin.accepts(&data.origin, self.subdomains) {
            return Err(wrong(
                "it was given on another site than the configured origin",
            ));
        }
        Ok(())
    }

    fn check_authenticator(&self, data: &AuthenticatorData) -> Result<(), SecondFactorError> {
        if data.rp_id_hash.as_slice() != self.id_hash {
            return Err(wrong("it is for another relying party"));
        }
        if !data.user_present {
            return Err(wrong("nobody touched the key"));
        }
        Ok(())
    }
}

/// What an authenticator signs.
fn signed(authenticator_data: &[u8], client_data: &[u8]) -> Vec<u8> {
    [authenticator_data, digest(&SHA256, client_data).as_ref()].concat()
}

fn descriptors(keys: &[Vec<u8>]) -> Vec<Value> {
    keys.iter()
        .map(|id| json!({ "type": "public-key", "id": encode_bytes(id) }))
        .collect()
}
