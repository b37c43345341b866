//! The JSON that a browser's page makes of what `navigator.credentials` returned.

use serde::Deserialize;
use serde_json::Value;

use super::{SecondFactorError, decode_bytes};

/// The answer to a registration challenge. Other members are passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrationResponse {
    /// CBOR of an attestation object.
    pub attestation_object: Vec<u8>,
    /// JSON of the client data.
    pub client_data: Vec<u8>,
}

/// The answer to a login challenge. Other members are passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssertionResponse {
    /// The challenge as text, as the login flow asks for it.
    pub challenge: String,
    /// Which credential signed.
    pub credential_id: Vec<u8>,
    /// The authenticator data.
    pub authenticator_data: Vec<u8>,
    /// JSON of the client data.
    pub client_data: Vec<u8>,
    /// The signature over both.
    pub signature: Vec<u8>,
}

const WHAT: &str = "WebAuthn response";

const fn wrong(reason: &'static str) -> SecondFactorError {
    SecondFactorError::new(WHAT, reason)
}

fn parse<T: for<'a> Deserialize<'a>>(text: &str) -> Result<T, SecondFactorError> {
    serde_json::from_str(text).map_err(|_| wrong("it is not JSON with the expected members"))
}

fn bytes(value: &Value) -> Result<Vec<u8>, SecondFactorError> {
    decode_bytes(value).ok_or(wrong("a member is not base64"))
}

impl RegistrationResponse {
    /// Parses the text.
    ///
    /// # Errors
    /// When a member is missing or not what it should be.
    pub fn parse(text: &str) -> Result<Self, SecondFactorError> {
        #[derive(Deserialize)]
        struct Json {
            response: Response,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Response {
            attestation_object: Value,
            #[serde(rename = "clientDataJSON")]
            client_data: Value,
        }
        let json: Json = parse(text)?;
        Ok(Self {
            attestation_object: bytes(&json.response.attestation_object)?,
            client_data: bytes(&json.response.client_data)?,
        })
    }
}

impl AssertionResponse {
    /// Parses the text.
    ///
    /// # Errors
    /// When a member is missing or not what it should be.
    pub fn parse(text: &str) -> Result<Self, SecondFactorError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Json {
            challenge: String,
            raw_id: Value,
            response: Response,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Response {
            authenticator_data: Value,
            #[serde(rename = "clientDataJSON")]
            client_data: Value,
            signature: Value,
        }
        let json: Json = parse(text)?;
        Ok(Self {
            challenge: json.challenge,
            credential_id: bytes(&json.raw_id)?,
            authenticator_data: bytes(&json.response.authenticator_data)?,
            client_data: bytes(&json.response.client_data)?,
            signature: bytes(&json.response.signature)?,
        })
    }
}
