//! Authenticator data: what an authenticator says about itself and a credential, in the bytes that it signs.

use minicbor::Decoder;

use super::{CoseKey, SecondFactorError};

const USER_PRESENT: u8 = 0x01;
const BACKUP_ELIGIBLE: u8 = 0x08;
const BACKUP_STATE: u8 = 0x10;
const ATTESTED_CREDENTIAL: u8 = 0x40;
const EXTENSIONS: u8 = 0x80;

/// Longest credential id that the standard allows, in bytes.
const MAX_CREDENTIAL_ID: usize = 1023;

/// Parsed authenticator data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthenticatorData {
    /// SHA-256 of the id of the relying party.
    pub rp_id_hash: [u8; 32],
    /// Whether somebody touched the authenticator.
    pub user_present: bool,
    /// Whether the credential may be copied to other devices.
    pub backup_eligible: bool,
    /// Whether it was.
    pub backup_state: bool,
    /// How often the authenticator signed; 0 when it does not count.
    pub counter: u32,
    /// The new credential; only in a registration.
    pub credential: Option<AttestedCredential>,
}

/// A credential that was just made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttestedCredential {
    /// Its id, 1 to 1023 bytes.
    pub id: Vec<u8>,
    /// Its public key.
    pub key: CoseKey,
}

impl AuthenticatorData {
    /// Parses the bytes; nothing may follow.
    ///
    /// # Errors
    /// When they are not authenticator data, or the key is of a kind that no stock server can use.
    pub fn parse(bytes: &[u8]) -> Result<Self, SecondFactorError> {
        let wrong = |reason| SecondFactorError::new("authenticator data", reason);
        let too_short = || wrong("it is too short");
        let (rp_id_hash, rest) = bytes.split_first_chunk::<32>().ok_or_else(too_short)?;
        let (&[flags], rest) = rest.split_first_chunk::<1>().ok_or_else(too_short)?;
        let (counter, mut rest) = rest.split_first_chunk::<4>().ok_or_else(too_short)?;
        let has = |flag: u8| flags & flag != 0;
        let mut credential = None;
        if has(ATTESTED_CREDENTIAL) {
            let (_model, after) = rest.split_first_chunk::<16>().ok_or_else(too_short)?;
            let (length, after) = after.split_first_chunk::<2>().ok_or_else(too_short)?;
            let length = usize::from(u16::from_be_bytes(*length));
            if length == 0 || length > MAX_CREDENTIAL_ID {
                return Err(wrong("the credential id is not 1 to 1023 bytes long"));
            }
            let (id, after) = after.split_at_checked(length).ok_or_else(too_short)?;
            let mut decoder = Decoder::new(after);
            let key = CoseKey::decode(&mut decoder)?;
            rest = after.get(decoder.position()..).unwrap_or_default();
            credential = Some(AttestedCredential {
                id: id.to_vec(),
                key,
            });
        }
        if has(EXTENSIONS) {
            let mut decoder = Decoder::new(rest);
            decoder
                .skip()
                .map_err(|_| wrong("the extensions are not CBOR"))?;
            rest = rest.get(decoder.position()..).unwrap_or_default();
        }
        if !rest.is_empty() {
            return Err(wrong("something follows it"));
        }
        if has(BACKUP_STATE) && !has(BACKUP_ELIGIBLE) {
            return Err(wrong("the credential is backed up although it cannot be"));
        }
        Ok(Self {
            rp_id_hash: *rp_id_hash,
            user_present: has(USER_PRESENT),
            backup_eligible: has(BACKUP_ELIGIBLE),
            backup_state: has(BACKUP_STATE),
            counter: u32::from_be_bytes(*counter),
            credential,
        })
    }
}
